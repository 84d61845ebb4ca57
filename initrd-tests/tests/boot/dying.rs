//! A disk that stops to answer: reads of its first 32 KiB succeed, and all others hang.

use super::failures::fails;
use super::fixture::{boot, run};
use super::modules::WITH_DISKS;
use qemu::Machine;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;
use std::thread;
use std::time::Duration;
use tempfile::TempDir;

/// The size of the disk, bytes.
const SIZE: u64 = 64 << 20;

/// Reads of later places hang. The kernel reads the partition table before.
const ANSWERED: u64 = 32 << 10;

/// The disk is gone this long after the first read that hangs: QEMU does not end before.
const GONE: Duration = Duration::from_secs(45);

/// Serves the disk on a socket, with the older handshake of NBD (doc/proto.md of nbd), to one client.
fn serve(listener: &UnixListener) -> std::io::Result<()> {
    let (mut client, _) = listener.accept()?;
    let head = [b"NBDMAGIC", &0x0000_4202_8186_1253_u64.to_be_bytes()[..], &SIZE.to_be_bytes(), &[0; 128]].concat();
    client.write_all(&head)?;
    let mut is_dying = false;
    loop {
        let mut request = [0; 28];
        client.read_exact(&mut request)?;
        let from = u64::from_be_bytes(request[16..24].try_into().unwrap());
        let length = u32::from_be_bytes(request[24..].try_into().unwrap());
        let is_read = request[6..8] == [0, 0];
        if is_read && from + u64::from(length) <= ANSWERED {
            let reply = [&0x6744_6698_u32.to_be_bytes()[..], &[0; 4], &request[8..16], &vec![0; length as usize]];
            client.write_all(&reply.concat())?;
        } else if !is_dying {
            is_dying = true;
            end_later(client.try_clone()?);
        }
    }
}

fn end_later(client: UnixStream) {
    thread::spawn(move || {
        thread::sleep(GONE);
        client.shutdown(Shutdown::Both)
    });
}

/// A machine whose first disk is dying. The second has an ext4.
fn machine() -> (TempDir, Machine) {
    let directory = tempfile::tempdir().unwrap();
    let (socket, disk) = (directory.path().join("nbd"), directory.path().join("disk"));
    let listener = UnixListener::bind(&socket).unwrap();
    thread::spawn(move || serve(&listener));
    run(Command::new("/sbin/mkfs.ext4").args(["-q", "-L", "state"]).arg(&disk).arg("64M")).unwrap();
    let disks = vec![format!("nbd:unix:{}", socket.display()).into(), disk];
    (directory, Machine { disks, ..Machine::of_build(&WITH_DISKS.directory).unwrap() })
}

#[test]
fn a_6_a_dying_disk_as_the_root_fails_the_boot_in_time() {
    let (_directory, mut machine) = machine();
    machine.append("boot.persistence=/dev/vda rootwait=2");
    let words = [
        "in the step  root",
        "waiting for the device /dev/vda of boot.persistence=",
        "this machine has /dev/vda (it did not answer within 5 s), /dev/vdb LABEL=state",
        "its disk gives no data",
    ];
    fails(&machine, &words);
}

#[test]
fn a_6_a_dying_disk_does_not_hold_up_another_one() {
    let (_directory, mut machine) = machine();
    machine.append("boot.persistence=LABEL=state probe=facts");
    let report = boot(&machine).unwrap();
    let root = report.mounts.iter().find(|mount| mount.target == "/").unwrap();
    assert_eq!([&root.kind, &root.source], ["ext4", "/dev/vdb"]);
    let step = report.boot["steps"].as_array().unwrap().iter().find(|step| step["name"] == "root").unwrap();
    let microseconds = step["end"].as_u64().unwrap() - step["start"].as_u64().unwrap();
    assert!((4_000_000..15_000_000).contains(&microseconds), "{step}");
}
