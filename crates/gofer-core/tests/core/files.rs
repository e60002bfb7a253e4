//! Files of a test.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A directory that is removed with its content when this is dropped.
pub(crate) struct Directory(pub(crate) PathBuf);

impl Directory {
    pub(crate) fn new(name: &str) -> Self {
        let name = format!("gofer-core-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Writes a script that can be executed. Another process writes it: a child that is spawned by a
/// test beside this one could inherit the open file, and the script would be busy.
pub(crate) fn write_script(path: &Path, text: &str) {
    let source = path.with_file_name(format!("{}.source", path.file_name().unwrap().display()));
    std::fs::write(&source, format!("#!/bin/sh\n{text}\n")).unwrap();
    let mut install = Command::new("install");
    install.args(["-m", "755"]).args([&*source, path]);
    assert!(install.status().unwrap().success());
    std::fs::remove_file(source).unwrap();
}
