//! Words on their way through the script to the kernel.

use super::*;
use crate::formats::kernel_line::KernelLine;

#[test]
fn c_5_the_script_passes_every_word_as_one() {
    let machine = Machine::new();
    let passed = |shell: &[&str], words: &[&str]| {
        let said = machine.run(shell, &[&["--load-only", "--"], words].concat())?;
        let (_, line) = said.trim_end().split_once("--command-line=").unwrap();
        Ok::<_, String>(line.trim_end_matches('>').to_owned())
    };
    let words = [
        "dyndbg=file drivers/usb/* +p",
        "a=\"b c\"",
        "d e",
        "f=g; h || i && j # ${k} \\ 'l' $m",
        "",
        "n=à",
        "-o",
        "--",
        "p q",
        "--",
    ];
    let expected = "init=/x a=\"b c\" it's dyndbg=\"file drivers/usb/* +p\" a=\"b c\" \"d e\" f=\"g; h || i && j # ${k} \\ 'l' $m\" n=\"à\" -o \
                    -- \"p q\" --";
    for shell in SHELLS {
        assert_eq!(passed(shell, &words).unwrap(), expected, "{shell:?}");
        for (word, expected) in [
            ("a=b\nc", "the kernel parameter a=b... has a control character"),
            ("a\u{1b}[2J", "the kernel parameter a... has a control character"),
            ("a=\"b", "the kernel parameter a=\"b has a double quote"),
            ("a=say \"hi\" now", "a=say \"hi\" now has a double quote"),
            ("a=\"b\" c", "has white space outside of its double quotes"),
        ] {
            let error = passed(shell, &[word]).unwrap_err();
            assert!(error.contains(expected) && error.lines().count() == 1, "{shell:?}: {error}");
        }
        // As the builder writes the same words.
        for word in
            ["a", "a=b", "a=b c", "a b=c", "=a b", "a=", "a= ", "a=b\"c\"d", "\"a=b c\"", "a==b c", "à", "a=\u{a0}"]
        {
            let line = KernelLine::of_words(&[word]).unwrap().to_string();
            assert_eq!(passed(shell, &[word]).unwrap(), format!("init=/x a=\"b c\" it's {line}"), "{shell:?}");
        }
    }
}

#[test]
fn c_4_the_script_measures_in_bytes_and_counts_words() {
    let machine = Machine::new();
    let run = |shell: &[&str], words: &[&str]| machine.run(shell, &[&["--load-only"], words].concat());
    // The line of the build has 21 bytes, with the space behind it.
    let fits = format!("a=é{}", "x".repeat(2016 - 21 - 4));
    let many: Vec<_> = (0..40).map(|number| format!("w{number}")).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    for shell in SHELLS {
        run(shell, &[&fits]).unwrap();
        let error = run(shell, &[&(fits.clone() + "x")]).unwrap_err();
        assert!(error.contains("has 2017 bytes, and kexec loads a kernel with at most 2016"), "{shell:?}: {error}");
        // The build has one: it's
        run(shell, &many[..31]).unwrap();
        for words in [&many[..32], &[&many[..31], &["--", "x"]].concat()] {
            let error = run(shell, words).unwrap_err();
            assert!(error.contains("more parameters than the kernel can pass to init"), "{shell:?}: {error}");
        }
        run(shell, &[&["--force"], &many[..32]].concat()).unwrap();
    }
    let dots: Vec<_> = many.iter().map(|word| format!("{word}.x=1")).collect();
    run(SHELLS[0], &dots.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
    let variables: Vec<_> = many.iter().map(|word| format!("{word}=1")).collect();
    let variables: Vec<_> = variables.iter().map(String::as_str).collect();
    run(SHELLS[0], &variables[..30]).unwrap();
    assert!(run(SHELLS[0], &variables[..31]).unwrap_err().contains("more parameters than"));
}

#[test]
fn c_5_markers_in_a_label_stay() {
    let directory = tempfile::tempdir().unwrap();
    let label = "@cmdline@ @for_kernel@ @@bytes@ 'x' @label@@";
    let build = sample(directory.path(), label, "init=/x a=@label@ -- @bytes@", "firn-init");
    let script = script(&build).unwrap();
    for line in [
        "label='@cmdline@ @for_kernel@ @@bytes@ '\\''x'\\'' @label@@'",
        "for_kernel='init=/x a=@label@'",
        "for_init='@bytes@' # the words after --",
    ] {
        assert!(script.lines().any(|other| other == line), "no {line} in {script}");
    }
    let output = Command::new("sh").args(["-n", "-c", &script]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(filled("a@b@@b@c@ @b@ x@y", &[("b", "@b@".into())]), "a@b@@b@c@ @b@ x@y");
}
