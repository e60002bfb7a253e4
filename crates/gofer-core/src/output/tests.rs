use super::*;

#[test]
fn output_is_split_into_lines_of_bounded_length_without_control_characters() {
    let mut lines = Lines::default();
    let mut logged = Vec::new();
    let long = "x".repeat(100_000);
    let pieces = [&b"one\r\ntw"[..], b"o\n\n", long.as_bytes(), b"\n\x1b[2J!\n", b"\xff\0end"];
    for bytes in pieces {
        lines.add(bytes, |line| logged.push(line.to_owned()));
        assert!(lines.0.len() <= MAX_LINE);
    }
    lines.finish(|line| logged.push(line.to_owned()));
    let shown: Vec<String> = logged.iter().map(|line| line.chars().take(5).collect()).collect();
    assert_eq!(shown, ["one", "two", "xxxxx", " [2J!", "\u{fffd} end"]);
    assert!(logged.iter().all(|line| line.len() <= MAX_LINE));
}

#[test]
fn a_line_of_an_extension_has_its_level_its_message_and_its_other_fields() {
    let line = r#"{"level":"warn","time":"now","message":"it is\nlate","extension":"x","runs":3}"#;
    assert_eq!(read(line), (Level::WARN, "it is late runs=3".to_owned()));
    for plain in ["{", "plain", r#"{"level":"warn"}"#, "[1]", r#"{"message":3}"#] {
        assert_eq!(read(plain), (Level::INFO, plain.to_owned()));
    }
}

#[test]
fn a_process_that_writes_too_much_is_logged_in_part() {
    for length in [0, 1, 1024, MAX_LINE] {
        let start = Instant::now();
        let mut allowance = Allowance { bytes: BURST, at: start, left_out: 0 };
        let (mut lines, mut mentioned) = (0, 0);
        // A thousand lines each hundredth of a second, for a minute.
        for n in 0..6_000_000_u32 {
            let now = start + Duration::from_millis(u64::from(n / 1000) * 10);
            if let Some(left_out) = allowance.take(length, now) {
                lines += 1;
                mentioned += usize::from(left_out > 0);
            }
        }
        assert!(mentioned <= 70, "lines that were left out are mentioned {mentioned} times");
        let bytes = (length + 128) * (lines + mentioned);
        assert!((3_000_000..6_000_000).contains(&bytes), "{bytes} bytes with lines of {length}");
    }
}

#[test]
fn the_last_lines_are_few_and_short() {
    let mut last = LastLines::default();
    assert_eq!(last.describe(), "");
    for line in ["a", "b", r#"{"message":"m","error":"e"}"#, &"x".repeat(1000)] {
        last.add(line);
    }
    assert_eq!(last.describe(), format!("; its last log lines: b / m: e / {}", "x".repeat(300)));
}
