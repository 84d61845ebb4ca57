//! The arguments of QEMU for a machine.

use crate::accel::Accel;
use crate::loader::Loader;
use crate::machine::Machine;
use crate::uefi;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::Path;

/// The program, on the PATH.
pub(crate) const QEMU: &str = "qemu-system-x86_64";

/// The host's side of the serial ports.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Serial<'a> {
    /// The first port is standard input and output, the second writes to this file.
    Report(&'a Path),
    /// The first port is the terminal on standard input and output, with QEMU's own keys (Ctrl-a); there is no second port.
    Terminal,
    /// The first port is standard input and output; there is no second port.
    Output,
}

/// The arguments, without the name of the program.
pub(crate) fn arguments(machine: &Machine, accel: Accel, serial: Serial) -> Vec<OsString> {
    let processors = machine.processors.to_string();
    let memory = format!("{}M", machine.memory_mib);
    let mut arguments: Vec<OsString> = ["-nodefaults", "-no-user-config", "-no-reboot"]
        .into_iter()
        .chain(["-display", "none", "-smp", &processors, "-m", &memory])
        .chain(accel.arguments().iter().copied())
        .map(OsString::from)
        .collect();
    arguments.extend(of_loader(machine, accel));
    arguments.extend(machine.arguments.iter().map(Into::into));
    for disk in &machine.disks {
        let read_only = fs::metadata(disk).is_ok_and(|file| file.permissions().readonly());
        let mode = if read_only { "readonly=on," } else { "" };
        arguments.extend(["-drive".into(), format!("if=virtio,format=raw,{mode}file={}", value(disk)).into()]);
    }
    let first = if matches!(serial, Serial::Terminal) { "mon:stdio" } else { "stdio" };
    arguments.extend(["-serial", first].map(OsString::from));
    if let Serial::Report(file) = serial {
        arguments.extend(["-serial".into(), [OsStr::new("file:"), file.as_os_str()].into_iter().collect()]);
    }
    arguments
}

fn of_loader(machine: &Machine, accel: Accel) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = Vec::new();
    match &machine.loader {
        Loader::Qemu { firmware, network } => {
            let parameters = [machine.own_parameters, accel.parameters(), machine.cmdline.trim()];
            let cmdline: Vec<_> = parameters.into_iter().filter(|parameters| !parameters.is_empty()).collect();
            arguments.extend(["-append".into(), cmdline.join(" ").into(), "-kernel".into(), (&machine.kernel).into()]);
            arguments.extend(machine.initrd.iter().flat_map(|file| ["-initrd".into(), file.into()]));
            arguments.extend(firmware.iter().flat_map(|file| ["-bios".into(), file.into()]));
            if *network {
                arguments.extend(["-nic", "user,model=virtio-net-pci"].map(Into::into));
            }
        }
        Loader::Ipxe { directory, script, firmware } => {
            let network = format!("user,id=network,tftp={},bootfile={script}", value(directory));
            // Without graphics the BIOS shows its messages on the serial port.
            arguments.extend(["-machine", "graphics=off", "-netdev", &network].map(Into::into));
            arguments.extend(["-device", "virtio-net-pci,netdev=network"].map(Into::into));
            arguments.extend(firmware.iter().flat_map(|file| ["-bios".into(), file.into()]));
        }
        Loader::Uefi { firmware, directory, network } => {
            let disk = format!("if=virtio,format=raw,readonly=on,file=fat:{}", value(directory));
            arguments.extend(["-bios".into(), firmware.into(), "-drive".into(), disk.into()]);
            if *network {
                arguments.extend(uefi::CARD.map(Into::into));
            }
        }
        Loader::Http { firmware, variables } => {
            let flash = |file: &Path, mode: &str| format!("if=pflash,format=raw,{mode},file={}", value(file)).into();
            arguments.extend(uefi::CARD.map(Into::into));
            arguments.extend(["-drive".into(), flash(firmware, "readonly=on")]);
            arguments.extend(["-drive".into(), flash(variables, "snapshot=on")]);
        }
    }
    arguments
}

/// A path as a part of one of QEMU's options, in which two commas stand for one.
fn value(path: &Path) -> String {
    path.to_string_lossy().replace(',', ",,")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::OWN_PARAMETERS;

    fn of(machine: &Machine, accel: Accel, serial: Serial) -> Vec<String> {
        arguments(machine, accel, serial).into_iter().map(|argument| argument.into_string().unwrap()).collect()
    }

    fn after<'a>(arguments: &'a [String], option: &str) -> Option<&'a str> {
        arguments.iter().skip_while(|argument| *argument != option).nth(1).map(String::as_str)
    }

    #[test]
    fn the_machines_own_parameters_come_first() {
        let machine = Machine { cmdline: "panic=0".into(), ..Machine::new("bzImage") };
        let append = |accel| after(&of(&machine, accel, Serial::Output), "-append").unwrap().to_owned();
        assert_eq!(append(Accel::Kvm), format!("{OWN_PARAMETERS} panic=0"));
        for accel in [Accel::Tcg, Accel::Counted] {
            assert_eq!(append(accel), format!("{OWN_PARAMETERS} {} panic=0", accel.parameters()));
        }
    }

    #[test]
    fn what_a_machine_has() {
        let machine =
            Machine { initrd: Some("a,b".into()), memory_mib: 2560, processors: 4, ..Machine::new("bzImage") };
        let plain = of(&machine, Accel::Tcg, Serial::Output);
        assert_eq!(after(&plain, "-accel"), Some("tcg"));
        assert_eq!((after(&plain, "-m"), after(&plain, "-initrd")), (Some("2560M"), Some("a,b")));
        assert_eq!(
            (after(&plain, "-smp"), after(&of(&Machine::new("x"), Accel::Tcg, Serial::Output), "-smp")),
            (Some("4"), Some("1"))
        );
        assert_eq!((after(&plain, "-nic"), after(&plain, "-bios")), (None, None));

        let loader = Loader::Qemu { firmware: Some("OVMF.fd".into()), network: true };
        let devices = ["-device", "virtio-serial-pci"].map(Into::into).into();
        let machine = Machine { loader, disks: vec!["a,b".into()], arguments: devices, ..machine };
        let full = of(&machine, Accel::Kvm, Serial::Output);
        assert_eq!((after(&full, "-accel"), after(&full, "-cpu")), (Some("kvm"), Some("host")));
        assert_eq!((after(&full, "-nic"), after(&full, "-bios")), (Some("user,model=virtio-net-pci"), Some("OVMF.fd")));
        assert_eq!(after(&full, "-drive"), Some("if=virtio,format=raw,file=a,,b"));
        assert_eq!(after(&full, "-device"), Some("virtio-serial-pci"));
    }

    #[test]
    fn serial_ports() {
        let ports = |serial| {
            let arguments = of(&Machine::new("bzImage"), Accel::Tcg, serial);
            let at = arguments.iter().position(|argument| argument == "-serial").unwrap();
            arguments[at..].join(" ")
        };
        assert_eq!(ports(Serial::Terminal), "-serial mon:stdio");
        assert_eq!(ports(Serial::Output), "-serial stdio");
        assert_eq!(ports(Serial::Report(Path::new("/report"))), "-serial stdio -serial file:/report");
    }
}
