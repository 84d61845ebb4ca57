//! The block devices of the machine, each read once, in a child process.

use crate::boot::disk::tag::{PATH, Tag, is_same};
use crate::boot::kernel::child::{Child, SEPARATOR};
use crate::formats::disk::{self, Source};
use anyhow::{Context, Result};
use std::fmt;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::time::Duration;

/// A block device of the machine.
#[derive(Debug, Default)]
pub struct Device {
    /// Its path, such as `/dev/vda1`.
    pub path: String,
    /// The type of its file system, if [`disk::recognize`] knows it.
    pub kind: Option<String>,
    /// The reason against mounting it, as the end of a sentence that begins with "it is".
    pub refusal: Option<String>,
    /// Its names, and those of the file system inside of it.
    pub tags: Vec<Tag>,
    /// The facts of sysfs about it. Another device of the same name has another number there, and another medium another size.
    pub facts: String,
    /// The child that reads it, until it answers.
    pub reader: Option<Child>,
    /// The reason why it cannot be read.
    pub failure: Option<String>,
}

/// The block devices of the machine that have a size, by name. sysfs has no fixed order: if two devices have the same label, every boot
/// has to take the same one.
#[derive(Debug, Default)]
pub struct Devices(pub Vec<Device>);

impl Devices {
    /// Looks for devices. Starts to read those that are new, and forgets those that are gone.
    ///
    /// # Errors
    ///
    /// `/sys/class/block` cannot be read, or a child process cannot be started.
    pub fn update(&mut self) -> Result<()> {
        let entries = fs::read_dir("/sys/class/block").context("reading /sys/class/block")?;
        let mut names: Vec<_> =
            entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        let mut known = std::mem::take(&mut self.0);
        for name in names {
            // A device that has just disappeared has no such files.
            let file = |file: &str| fs::read_to_string(format!("/sys/class/block/{name}/{file}")).unwrap_or_default();
            let facts = file("uevent") + &file("size");
            let device = match known.iter().position(|device| device.facts == facts) {
                Some(place) => Some(known.swap_remove(place)),
                None => Device::new(facts)?,
            };
            self.0.extend(device);
        }
        Ok(())
    }

    /// Takes the answers of devices that are being read. Waits for one of them, but not longer than `limit`. Returns whether some have
    /// not answered yet.
    pub fn collect(&mut self, mut limit: Duration) -> bool {
        for device in &mut self.0 {
            let Some(reader) = &mut device.reader else { continue };
            match reader.answer(limit) {
                Ok(None) => {
                    limit = Duration::ZERO;
                    continue;
                }
                Ok(Some(answer)) => device.take(&answer),
                Err(error) => device.failure = Some(format!("{error:#}")),
            }
            device.reader = None;
        }
        limit.is_zero()
    }
}

impl Device {
    /// A device with these facts, if it has a medium: starts to read it.
    fn new(facts: String) -> Result<Option<Self>> {
        let sectors: u64 = facts.lines().last().and_then(|size| size.parse().ok()).unwrap_or(0);
        let Some(name) = variable(&facts, "DEVNAME").filter(|_| sectors > 0) else { return Ok(None) };
        let path = format!("/dev/{name}");
        let mut tags = vec![(PATH, path.clone())];
        // The kernel tells PARTUUID since Linux 6.13.
        for (variable_name, tag) in [("PARTNAME", "PARTLABEL"), ("PARTUUID", "PARTUUID")] {
            tags.extend(variable(&facts, variable_name).map(|value| (tag, value.into())));
        }
        let is_disk = variable(&facts, "DEVTYPE") != Some("partition");
        let reader = Child::start(&|| read(&path, sectors * 512, is_disk))?;
        Ok(Some(Self { path, tags, facts, reader: Some(reader), ..Self::default() }))
    }

    /// Takes the answer of [`read`].
    fn take(&mut self, answer: &str) {
        let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let mut fields = answer.split(SEPARATOR);
        let first = text(fields.next().unwrap_or_default());
        let Some(refusal) = fields.next() else {
            self.failure = first;
            return;
        };
        let [kind, uuid, label] = [(); 3].map(|()| fields.next().unwrap_or_default());
        (self.refusal, self.kind) = (text(refusal), text(kind));
        self.tags.extend([("LABEL", label.to_owned()), ("UUID", uuid.to_owned())]);
        self.tags.retain(|(_, value)| !value.is_empty());
    }

    /// Whether it, or a file system inside of it, has this name.
    pub fn has(&self, tag: &Tag) -> bool {
        self.tags.iter().any(|other| is_same(other, tag))
    }
}

/// Reads a device: the fields of its contents, or the reason why it cannot be read.
fn read(path: &str, size: u64, is_disk: bool) -> String {
    let contents = File::open(path).and_then(|file| {
        let read = |buffer: &mut [u8], place: u64| file.read_exact_at(buffer, place);
        disk::recognize(&Source { size, is_disk, read: &read })
    });
    match contents {
        Ok(contents) => {
            let refusal = contents.refusal.unwrap_or_default();
            let (kind, uuid, label) =
                contents.file_system.map_or_else(Default::default, |found| (found.kind, found.uuid, found.label));
            format!("\0{refusal}\0{kind}\0{uuid}\0{label}")
        }
        Err(error) => error.to_string(),
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)?;
        for (name, value) in self.tags.iter().filter(|(name, _)| *name != PATH) {
            write!(f, " {name}={value}")?;
        }
        match (&self.reader, &self.failure, &self.refusal) {
            (Some(reader), ..) => write!(f, " (it did not answer within {} s)", reader.age().as_secs()),
            (_, Some(failure), _) => write!(f, " (it cannot be read: {failure})"),
            (.., Some(refusal)) => write!(f, " ({refusal})"),
            _ => Ok(()),
        }
    }
}

fn variable<'a>(uevent: &'a str, name: &str) -> Option<&'a str> {
    uevent.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A device with an answer, or one that is being read.
    fn device(uevent: &str, answer: Option<&str>) -> Device {
        let mut device = Device::new(format!("{uevent}8\n")).unwrap().unwrap();
        if let Some(answer) = answer {
            device.reader = None;
            device.take(answer);
        }
        device
    }

    #[test]
    fn devices_are_known_by_what_they_have() {
        let uevent =
            "MAJOR=254\nMINOR=1\nDEVNAME=vda1\nDEVTYPE=partition\nPARTN=1\nPARTNAME=my state\nPARTUUID=ab-01\n";
        let found = device(uevent, Some("\0\0ext4\x0012ab-34\0"));
        assert_eq!((found.kind.as_deref(), &found.refusal), (Some("ext4"), &None));
        assert_eq!(found.to_string(), "/dev/vda1 PARTLABEL=my state PARTUUID=ab-01 UUID=12ab-34");
        for (name, expected) in [
            ("/dev/vda1", true),
            ("/dev/vda", false),
            ("UUID=12AB-34", true),
            ("UUID=ab-01", false),
            ("PARTUUID=AB-01", true),
            ("PARTLABEL=my state", true),
            ("PARTLABEL=My State", false),
            ("LABEL=", false),
        ] {
            assert_eq!(found.has(&crate::boot::disk::tag::tag(name)), expected, "{name}");
        }
        assert!(Device::new("DEVNAME=sr0\n0\n".into()).unwrap().is_none());
    }

    #[test]
    fn a_2_and_6_devices_in_a_list() {
        for (answer, expected) in [
            ("\0\0\0\0", "/dev/sda"),
            ("\0swap space, swap\0\0\0", "/dev/sda (swap space, swap)"),
            ("Input/output error", "/dev/sda (it cannot be read: Input/output error)"),
        ] {
            assert_eq!(device("DEVNAME=sda\n", Some(answer)).to_string(), expected);
        }
        let silent = device("DEVNAME=sda\n", None).to_string();
        assert_eq!(silent, "/dev/sda (it did not answer within 0 s)");
    }

    #[test]
    fn a_6_a_device_is_read_once() {
        if !rustix::process::geteuid().is_root() {
            return eprintln!("skipped: only root reads devices");
        }
        let mut devices = Devices::default();
        devices.update().unwrap();
        let pids = |devices: &Devices| -> Vec<_> {
            devices.0.iter().map(|device| (device.path.clone(), device.reader.is_some())).collect()
        };
        while devices.collect(Duration::from_secs(1)) {}
        devices.update().unwrap();
        assert!(pids(&devices).iter().filter(|(path, _)| !path.starts_with("/dev/loop")).all(|(_, is_read)| !is_read));
    }
}
