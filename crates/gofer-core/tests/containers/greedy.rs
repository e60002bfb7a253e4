//! The program of an image: no extension, but one that asks for what its first argument says. It
//! ends with code 7 if it gets that, and otherwise with code 8.

use std::io::Result;
use std::process::{Command, exit};
use std::time::Duration;

/// Far more than a test allows, and little enough not to harm a machine that does not limit it.
const MOST: usize = 500;

fn main() {
    let wanted = std::env::args().nth(1).unwrap_or_default();
    // All on one stream, so that the lines stay in order.
    match ask_for(&wanted) {
        Ok(()) => exit(7),
        Err(error) => eprintln!("it cannot have {wanted}: {error}"),
    }
    exit(8);
}

fn ask_for(wanted: &str) -> Result<()> {
    match wanted {
        // In MiB.
        "memory" => drop((0..MOST).map(|_| vec![1_u8; 1 << 20]).collect::<Vec<_>>()),
        "processes" => {
            for _ in 0..MOST {
                drop(Command::new("/greedy").arg("wait").spawn()?);
            }
        }
        "wait" => std::thread::sleep(Duration::from_secs(3600)),
        "files" => {
            // An image from scratch has none.
            let _ = std::fs::create_dir("/tmp");
            std::fs::write("/tmp/file", "content")?;
            eprintln!("it has written to /tmp");
            std::fs::write("/file", "content")?;
            eprintln!("it has written to /");
        }
        // In MiB.
        "tmp" => std::fs::write("/tmp/large", vec![1_u8; 100 << 20])?,
        _ => unreachable!("{wanted}"),
    }
    Ok(())
}
