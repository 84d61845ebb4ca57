//! The modules that the command line leaves out: a mount that lacks one of them is not the fault of the kernel or of the ramdisk.

use crate::boot::kernel::command_line;
use crate::formats::cmdline::{self, CommandLine};
use crate::formats::modules::module_name;
use std::sync::Mutex;

/// The kernel parameters that list modules not to load: firn's, the kernel's (it would refuse these modules, and the boot would fail),
/// kmod's and dracut's.
const MODULES: [&str; 4] = ["firn.modules.skip", "module_blacklist", "modprobe.blacklist", "rd.driver.blacklist"];

/// The kernel parameter that lists functions of built-in modules not to run (`init/main.c`).
const FUNCTIONS: &str = "initcall_blacklist";

/// The words that left out modules of the ramdisk so far.
static WORDS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Notes that a word left out a module of the ramdisk, which would be loaded otherwise.
pub fn note(word: String) {
    if let Ok(mut words) = WORDS.lock()
        && !words.contains(&word)
    {
        words.push(word);
    }
}

/// The end of a message about something that is missing: the words that left out modules of the ramdisk. Empty without any.
pub fn hint() -> String {
    match WORDS.lock() {
        Ok(words) if !words.is_empty() => format!(
            "; the kernel command line leaves out modules of the ramdisk: if one is needed here, remove it from {}",
            words.join(" ")
        ),
        _ => String::new(),
    }
}

/// The word of the command line that leaves out the module `name`, such as `rd.driver.blacklist=nouveau,loop`.
pub fn by(cmdline: &CommandLine, name: &str) -> Option<String> {
    let name = module_name(name);
    let lists =
        |key: &str, list: &str| MODULES.contains(&key) && list.split(',').any(|other| module_name(other) == name);
    let (key, value) = cmdline.iter().find(|(key, value)| value.is_some_and(|list| lists(key, list)))?;
    Some(cmdline::parameter(key, value))
}

/// The reason why the kernel lacks `thing`, which the module `name` brings, and the next step.
pub fn reason(thing: &str, name: &str) -> String {
    reason_in(&command_line::now(), thing, name, &hint())
}

/// `hint`: the words that left out other modules, which this one may need.
fn reason_in(cmdline: &CommandLine, thing: &str, name: &str, hint: &str) -> String {
    if let Some(word) = by(cmdline, name) {
        return format!("the kernel command line leaves out {thing}: remove {name} from {word}");
    }
    let functions = cmdline.value(FUNCTIONS).map(|list| format!("; {FUNCTIONS}={list} may have taken it away"));
    format!(
        "this kernel has no {thing}, neither built in nor as a module in the ramdisk{}; build the ramdisk again with a kernel that has it{hint}",
        functions.unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b_7_the_word_that_leaves_out_a_module_is_named() {
        for (line, name, expected) in [
            ("quiet", "loop", None),
            ("rd.driver.blacklist=nouveau,loop", "loop", Some("rd.driver.blacklist=nouveau,loop")),
            ("module_blacklist=a modprobe.blacklist=virtio-blk", "virtio_blk", Some("modprobe.blacklist=virtio-blk")),
            ("firn.modules.skip=a,,b firn.modules.skip=virtio_blk", "virtio-blk", Some("firn.modules.skip=virtio_blk")),
            ("rd.driver.blacklist=looper loop.blacklist=loop module_blacklist", "loop", None),
        ] {
            assert_eq!(by(&CommandLine::parse(line.as_bytes()), name).as_deref(), expected, "{line}");
        }
    }

    #[test]
    fn b_7_the_kernel_is_blamed_only_if_the_command_line_leaves_out_nothing() {
        let reason = |line: &str| reason_in(&CommandLine::parse(line.as_bytes()), "loop devices", "loop", "; the hint");
        assert_eq!(
            reason("modprobe.blacklist=loop,x"),
            "the kernel command line leaves out loop devices: remove loop from modprobe.blacklist=loop,x"
        );
        assert!(reason("modprobe.blacklist=x").starts_with("this kernel has no loop devices, neither built in nor"));
        let blamed = reason("initcall_blacklist=loop_init");
        assert!(blamed.contains("; initcall_blacklist=loop_init may have taken it away; build"), "{blamed}");
        assert!(blamed.ends_with("; the hint"), "{blamed}");
    }
}
