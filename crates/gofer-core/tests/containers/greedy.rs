//! The program of an image: no extension, but one that asks for what its first argument says. It
//! ends with code 7 if it gets that.

use std::process::Command;
use std::time::Duration;

/// Far more than a test allows, and little enough not to harm a machine that does not limit it.
const MOST: usize = 500;

fn main() {
    let wanted = std::env::args().nth(1).unwrap_or_default();
    match &*wanted {
        // In MiB.
        "memory" => drop((0..MOST).map(|_| vec![1_u8; 1 << 20]).collect::<Vec<_>>()),
        "processes" => {
            for _ in 0..MOST {
                drop(Command::new("/greedy").arg("wait").spawn().expect("a process"));
            }
        }
        "wait" => std::thread::sleep(Duration::from_secs(3600)),
        "files" => {
            // An image from scratch has none.
            let _ = std::fs::create_dir("/tmp");
            std::fs::write("/tmp/file", "content").expect("a file in /tmp");
            println!("it has written to /tmp");
            std::fs::write("/file", "content").expect("a file in /");
            println!("it has written to /");
        }
        // In MiB.
        "tmp" => std::fs::write("/tmp/large", vec![1_u8; 100 << 20]).expect("a large file"),
        _ => unreachable!("{wanted}"),
    }
    std::process::exit(7);
}
