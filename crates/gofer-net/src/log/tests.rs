use std::fs::{File, OpenOptions};
use std::io::{PipeReader, Read as _};

use super::*;

impl Output for File {
    fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
        Write::write_all(&mut &*self, bytes)
    }
}

fn pipe() -> (PipeReader, LogWriter<PipeWriter>) {
    let (reader, writer) = io::pipe().unwrap();
    (reader, LogWriter::new(writer, |lines| format!("left out: {lines}\n")))
}

#[test]
fn a_line_is_written_before_the_call_returns_and_needs_no_thread() {
    let (mut reader, mut log) = pipe();
    log.write_all(b"a line\n").unwrap();
    assert!(!log.0.lock().has_thread);
    drop(log);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "a line\n");
}

#[test]
fn a_log_without_a_reader_fails_nobody() {
    let (reader, mut log) = pipe();
    drop(reader);
    for _ in 0..3 {
        log.write_all(b"a line\n").unwrap();
    }
    assert_eq!(log.0.lock().left_out, 3);
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_fails_nobody() {
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut log = LogWriter::new(full, |_| String::new());
    log.write_all(b"a line\n").unwrap();
    log.write_all(&[b'x'; 2 * ROOM]).unwrap();
    log.finish();
    assert_eq!(log.0.lock().left_out, 2);
}

#[test]
fn a_reader_that_stops_reading_holds_up_nobody_and_is_told_what_it_missed() {
    let (mut reader, mut log) = pipe();
    let line = [&[b'x'; 99][..], b"\n"].concat();
    let written = 4 * MAX_WAITING / line.len();
    for _ in 0..written {
        log.write_all(&line).unwrap();
    }
    let left_out = log.0.lock().left_out;
    assert!(left_out > 0 && log.0.lock().waiting.len() <= MAX_WAITING);
    // Now it reads again.
    let text = std::thread::spawn(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        text
    });
    while log.0.lock().has_thread {
        log.finish();
    }
    log.write_all(b"the last\n").unwrap();
    drop(log);
    let text = text.join().unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.last(), Some(&"the last"));
    assert!(lines.contains(&&*format!("left out: {left_out}")), "{:?}", lines.last());
    let whole = lines.iter().filter(|it| it.len() == 99).count();
    assert_eq!(whole as u64 + left_out, written as u64);
}
