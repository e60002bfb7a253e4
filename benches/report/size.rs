//! The size of the program that is put into an image: static and stripped, without the core.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::report::Table;
use crate::common::{Result, number};

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Not that of the usual builds, which have other flags.
fn target_directory() -> PathBuf {
    let this = std::env::current_exe().unwrap_or_default();
    // target/release/deps/report-…
    let target = this.ancestors().nth(3).unwrap_or(Path::new("target"));
    target.join("static")
}

fn program() -> PathBuf {
    target_directory().join(TARGET).join("image/interval")
}

/// The program, if an earlier run has built it.
#[must_use]
pub(crate) fn built() -> Option<PathBuf> {
    Some(program()).filter(|program| program.exists())
}

pub(crate) fn measure(table: &mut Table) -> Result<()> {
    let status = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()))
        .args(["build", "--profile", "image", "-p", "interval"])
        .args(["--target", TARGET, "--target-dir"])
        .arg(target_directory())
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .status()?;
    if !status.success() {
        return Err("the package `interval` cannot be built".into());
    }
    let megabytes = number(std::fs::metadata(program())?.len()) / 1e6;
    table.promise(
        "static, stripped release binary of `interval`",
        "≤ 5 MB",
        format!("{megabytes:.2} MB"),
        "",
        megabytes <= 5.0,
    );
    Ok(())
}
