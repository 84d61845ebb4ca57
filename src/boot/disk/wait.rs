//! Waits for the device of the root.

use crate::boot::disk::devices::{Device, Devices};
use crate::boot::disk::tag::{Tag, tag};
use crate::boot::kernel::child::LINES;
use crate::boot::kernel::coldplug;
use crate::boot::kernel::left_out;
use crate::boot::kernel::modules::Loader;
use anyhow::{Result, bail};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The time between two looks at the devices.
const PAUSE: Duration = Duration::from_millis(100);

/// The time for a device that has just appeared to answer: after it, other devices with the same name are taken without waiting for this
/// one. The wait is not longer than its limit by more than this.
const ANSWER: Duration = Duration::from_secs(5);

/// Waits until a device of this name appears. It loads drivers while it waits: devices on slow buses appear late.
///
/// # Errors
///
/// The device does not appear, does not answer, or is a part of something else.
pub fn find(name: &str, timeout: Duration, modules: &mut Loader<'_>) -> Result<Device> {
    let (tag, start) = (tag(name), Instant::now());
    let (mut devices, mut event, mut next_line) = (Devices::default(), String::new(), Duration::ZERO);
    loop {
        devices.update()?;
        let are_read = !devices.collect(PAUSE);
        if let Some(place) = choose(&devices.0, &tag) {
            let device = devices.0.swap_remove(place);
            if let Some(refusal) = &device.refusal {
                bail!("{} is not mounted: it is {refusal}; {NEXT}", device.path);
            }
            return Ok(device);
        }
        let waited = start.elapsed();
        let is_over = |limit: Duration| waited >= timeout.saturating_add(limit);
        if is_over(ANSWER) || is_over(Duration::ZERO) && !devices.0.iter().any(may_answer) {
            bail!("{}{}", missing(&devices.0, &tag, waited), left_out::hint());
        }
        if waited >= next_line {
            log::info!(
                "Waiting for the device {name}, for {} s; this machine has {}",
                waited.as_secs(),
                list(&devices.0)
            );
            next_line = waited + LINES;
        }
        if are_read {
            sleep(PAUSE);
        }
        let last = coldplug::last_event();
        if last.is_empty() || last != event {
            coldplug::run(modules)?;
            event = last;
        }
    }
}

/// The next step for somebody whose device is refused.
const NEXT: &str =
    "name the device that is made of it, such as /dev/md0, or if the signature is old, erase it with wipefs";

/// The place of the device with a name, as soon as it is certain: of two devices with the same label the first one counts. As with udev,
/// a device that is refused has no label of its own, so that the assembled one has it.
fn choose(devices: &[Device], tag: &Tag) -> Option<usize> {
    let is_read = matches!(tag.0, "LABEL" | "UUID");
    let place = devices.iter().position(|device| device.has(tag) && !(is_read && device.refusal.is_some()))?;
    let (before, rest) = devices.split_at_checked(place)?;
    let device = rest.first().filter(|device| device.reader.is_none() && device.failure.is_none());
    // sysfs has the other names, of all devices at once.
    device.filter(|_| !(is_read && before.iter().any(may_answer))).map(|_| place)
}

/// Whether a device is being read, and not for long.
fn may_answer(device: &Device) -> bool {
    device.reader.as_ref().is_some_and(|reader| reader.age() < ANSWER)
}

fn list(devices: &[Device]) -> String {
    let present: Vec<_> = devices.iter().map(ToString::to_string).collect();
    if present.is_empty() { "no block devices".into() } else { present.join(", ") }
}

/// The sentence about a device that is missing after this time.
fn missing(devices: &[Device], tag: &Tag, waited: Duration) -> String {
    let next = match devices.iter().find(|device| device.has(tag)) {
        Some(Device { refusal: Some(refusal), path, .. }) => {
            format!("it is inside of {path}, which is {refusal}: assemble that first, or {NEXT}")
        }
        Some(_) => "its disk gives no data; the kernel log may say why (dmesg)".into(),
        None => {
            "name one of these devices, or add the driver of the missing one with firn build --available-module (nvme, \
                 virtio_blk, ahci with sd_mod, …)"
                .into()
        }
    };
    format!("it did not appear in {} s; this machine has {}; {next}", waited.as_secs(), list(devices))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::kernel::child::Child;

    fn device(path: &str, label: &str) -> Device {
        let tags = vec![("", path.to_owned()), ("LABEL", label.to_owned())];
        Device { path: path.into(), tags, ..Device::default() }
    }

    #[test]
    fn a_2_a_member_is_chosen_by_its_path_only() {
        let member = Device { refusal: Some("a member".into()), ..device("/dev/vda", "state") };
        let devices = [member, device("/dev/md0", "state")];
        assert_eq!(choose(&devices, &tag("LABEL=state")), Some(1));
        assert_eq!(choose(&devices, &tag("/dev/vda")), Some(0));
        assert_eq!(choose(&devices, &tag("LABEL=other")), None);
        let said = missing(&devices[..1], &tag("LABEL=state"), Duration::from_secs(2));
        assert!(said.contains("it is inside of /dev/vda, which is a member: assemble that first, or name"), "{said}");
    }

    #[test]
    fn a_6_a_device_that_may_still_answer_comes_first() {
        let reader = || Some(Child::start(&|| String::from("x")).unwrap());
        let devices = [Device { reader: reader(), ..device("/dev/sda", "") }, device("/dev/sdb", "state")];
        assert_eq!(choose(&devices, &tag("LABEL=state")), None);
        assert_eq!(choose(&devices, &tag("/dev/sdb")), Some(1));
        assert_eq!(choose(&devices, &tag("/dev/sda")), None);
        let failed = [Device { failure: Some("dead".into()), ..device("/dev/sda", "") }, device("/dev/sdb", "state")];
        assert_eq!(choose(&failed, &tag("LABEL=state")), Some(1));
        let said = missing(&failed, &tag("/dev/sda"), Duration::from_secs(2));
        assert!(said.ends_with("its disk gives no data; the kernel log may say why (dmesg)"), "{said}");
    }
}
