//! Programs built with a sanitizer, on the ordinary libraries: what is planted on a coroutine's stack is found, which
//! proves that the tool was on, and the same program without it runs to its end without a report.

#![cfg(target_os = "linux")]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use support::{library, root, run, scratch};

/// How a program is built.
struct Build {
    program: PathBuf,
    folder: PathBuf,
}

impl Build {
    fn new(compiler: &str, sanitizer: &str, file: &str) -> Build {
        let folder = scratch(&format!("sanitizers_{compiler}_{sanitizer}_{file}"));
        let program = folder.join("planted");
        let library = library(file);
        if file.ends_with(".so") {
            std::fs::copy(&library, folder.join("libcolib.so.0.5")).unwrap();
        }
        run(Command::new(compiler)
            .args(["-std=c++17", "-g", "-O1", "-Wall", "-Wextra", "-Werror", "-I"])
            .arg(root().join("include"))
            .arg(format!("-fsanitize={sanitizer}"))
            .arg(root().join("tests/sanitizers/planted.cpp"))
            .arg(&library)
            .args(["-lpthread", "-ldl", "-lrt", "-lutil", "-lm", "-o"])
            .arg(&program));
        Build { program, folder }
    }

    /// What a run with a fault of this kind prints, in all.
    fn output(&self, which: &str, stack: &str) -> String {
        let after_return = u8::from(which == "use-after-return");
        let output = Command::new(&self.program)
            .args([which, stack])
            .env("LD_LIBRARY_PATH", Path::new(&self.folder))
            .env("ASAN_OPTIONS", format!("detect_leaks=1:detect_stack_use_after_return={after_return}"))
            .env("UBSAN_OPTIONS", "print_stacktrace=0")
            .output()
            .unwrap();
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat()
    }

    /// Each of `planted` (a kind, and what the report says of it) is found on both kinds of stacks; `none` and `kept` end
    /// without a word.
    fn check(&self, planted: &[(&str, &str)]) {
        for stack in ["private", "copy"] {
            for which in ["none", "kept"] {
                assert_eq!(self.output(which, stack), "to the end\n", "{which} on a {stack} stack");
            }
            for (which, report) in planted {
                let output = self.output(which, stack);
                assert!(output.contains(report), "{which} on a {stack} stack: no {report}:\n{output}");
                assert!(output.contains("planted.cpp:"), "{which} on a {stack} stack: no line:\n{output}");
            }
        }
    }
}

const ADDRESS: &[(&str, &str)] = &[
    ("overflow", "AddressSanitizer: stack-buffer-overflow"),
    ("use-after-return", "AddressSanitizer: stack-use-after-return"),
    ("leak", "LeakSanitizer: detected memory leaks"),
    ("undefined", "runtime error: signed integer overflow"),
];
const THREAD: &[(&str, &str)] = &[("race", "ThreadSanitizer: data race")];

macro_rules! sanitizer_tests {
    ($($name:ident: $compiler:literal $sanitizer:literal $file:literal finds $planted:expr;)*) => {
        $(
            #[test]
            fn $name() {
                Build::new($compiler, $sanitizer, $file).check($planted);
            }
        )*
    };
}

sanitizer_tests! {
    gcc_address_and_undefined_static: "g++" "address,undefined" "libcolib.a" finds ADDRESS;
    gcc_address_and_undefined_shared: "g++" "address,undefined" "libcolib.so" finds ADDRESS;
    clang_address_and_undefined_static: "clang++" "address,undefined" "libcolib.a" finds ADDRESS;
    clang_address_and_undefined_shared: "clang++" "address,undefined" "libcolib.so" finds ADDRESS;
    gcc_thread_static: "g++" "thread" "libcolib.a" finds THREAD;
    gcc_thread_shared: "g++" "thread" "libcolib.so" finds THREAD;
    clang_thread_static: "clang++" "thread" "libcolib.a" finds THREAD;
    clang_thread_shared: "clang++" "thread" "libcolib.so" finds THREAD;
}
