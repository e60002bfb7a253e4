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
    let start = Instant::now();
    let mut allowance = Allowance { bytes: BURST, at: start, left_out: 0 };
    let logged = (0..10_000).filter(|_| allowance.take(1024, start).is_some()).count();
    assert_eq!(logged, 1024);
    assert_eq!(allowance.take(1024, start + Duration::from_secs(1)), Some(10_000 - 1024));
    let later = start + Duration::from_secs(3600);
    assert_eq!((0..10_000).filter(|_| allowance.take(1024, later).is_some()).count(), 1024);
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
