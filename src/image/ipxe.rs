//! The script that iPXE boots from.

/// A script for a directory that holds `bzImage` and `initrd`, with the words `cmdline` for the kernel.
///
/// `initrd=initrd` names the ramdisk to the EFI stub of the kernel, which finds it by that name. `${cmdline}` is for whoever
/// chain-loads the script and has words to add.
pub fn script(cmdline: &str) -> String {
    format!(
        "#!ipxe\n\
         # Made by firn. Set the variable cmdline before chain-loading this to add words to the kernel's command line.\n\
         kernel bzImage {cmdline} initrd=initrd ${{cmdline}}\n\
         initrd initrd\n\
         boot\n"
    )
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_kernel_line_carries_everything() {
        let script = super::script("init=/nix/store/x/init quiet");
        let lines: Vec<_> = script.lines().filter(|line| !line.starts_with("# ")).collect();
        assert_eq!(
            lines,
            ["#!ipxe", "kernel bzImage init=/nix/store/x/init quiet initrd=initrd ${cmdline}", "initrd initrd", "boot"]
        );
    }
}
