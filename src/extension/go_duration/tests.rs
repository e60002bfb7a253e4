use super::*;
use crate::extension::tests::Random;
use serde_json::{from_str, from_value, json, to_value};

/// What Go's `time.ParseDuration` and `Duration.String` answer: the nanoseconds and the text, or a
/// refusal. Taken from a run of real Go.
#[rustfmt::skip]
#[expect(clippy::unreadable_literal, reason = "as Go prints them")]
const GO: &[(&str, Option<(i64, &str)>)] = &[
    ("", None),
    ("0", Some((0, "0s"))),
    ("-0", Some((0, "0s"))),
    ("+0", Some((0, "0s"))),
    ("00", None),
    ("0s", Some((0, "0s"))),
    ("-0s", Some((0, "0s"))),
    ("0.0h", Some((0, "0s"))),
    ("0ns", Some((0, "0s"))),
    ("5s", Some((5000000000, "5s"))),
    ("30s", Some((30000000000, "30s"))),
    ("90s", Some((90000000000, "1m30s"))),
    ("-5s", Some((-5000000000, "-5s"))),
    ("+5s", Some((5000000000, "5s"))),
    ("7.0s", Some((7000000000, "7s"))),
    ("7.2s", Some((7200000000, "7.2s"))),
    ("5.s", Some((5000000000, "5s"))),
    (".5s", Some((500000000, "500ms"))),
    ("1.s", Some((1000000000, "1s"))),
    ("1.5h", Some((5400000000000, "1h30m0s"))),
    ("-1.5h", Some((-5400000000000, "-1h30m0s"))),
    ("-.5s", Some((-500000000, "-500ms"))),
    ("+.5s", Some((500000000, "500ms"))),
    ("1h30m", Some((5400000000000, "1h30m0s"))),
    ("1h0m0s", Some((3600000000000, "1h0m0s"))),
    ("1h1h", Some((7200000000000, "2h0m0s"))),
    ("3h30m", Some((12600000000000, "3h30m0s"))),
    ("4.25s2m", Some((124250000000, "2m4.25s"))),
    ("6m0.25s", Some((360250000000, "6m0.25s"))),
    ("9h8m7s6ms5us4ns", Some((32887006005004, "9h8m7.006005004s"))),
    ("25h61m3.125s", Some((93663125000000, "26h1m3.125s"))),
    ("300ms", Some((300000000, "300ms"))),
    ("1.5µs", Some((1500, "1.5µs"))),
    ("1.5μs", Some((1500, "1.5µs"))),
    ("1.5us", Some((1500, "1.5µs"))),
    ("12us", Some((12000, "12µs"))),
    ("0.5ns", Some((0, "0s"))),
    ("1.9ns", Some((1, "1ns"))),
    ("0.000000001s", Some((1, "1ns"))),
    ("0.0000000009s", Some((0, "0s"))),
    ("0.6666666666666666666h", Some((2400000000000, "40m0s"))),
    ("0.1h", Some((360000000000, "6m0s"))),
    ("0.7m", Some((42000000000, "42s"))),
    ("0.25000000000000000000000000h", Some((900000000000, "15m0s"))),
    ("0.7123456789012345678901234567890123456789h", Some((2564444444044, "42m44.444444044s"))),
    ("0.9223372036854775807h", Some((3320413933267, "55m20.413933267s"))),
    ("0.9223372036854775808h", Some((3320413933267, "55m20.413933267s"))),
    ("0.9223372036854775809h", Some((3320413933267, "55m20.413933267s"))),
    ("0.99999999999999999999s", Some((1000000000, "1s"))),
    ("0.999999999s", Some((999999999, "999.999999ms"))),
    ("61000000001ns", Some((61000000001, "1m1.000000001s"))),
    ("9223372036854775807ns", Some((9223372036854775807, "2562047h47m16.854775807s"))),
    ("9223372036854775808ns", None),
    ("-9223372036854775807ns", Some((-9223372036854775807, "-2562047h47m16.854775807s"))),
    ("-9223372036854775808ns", Some((-9223372036854775808, "-2562047h47m16.854775808s"))),
    ("-9223372036854775809ns", None),
    ("9223372036854775.807us", Some((9223372036854775807, "2562047h47m16.854775807s"))),
    ("9223372036854775.808us", None),
    ("-9223372036854775.808us", Some((-9223372036854775808, "-2562047h47m16.854775808s"))),
    ("9223372036s854ms775us807ns", Some((9223372036854775807, "2562047h47m16.854775807s"))),
    ("9223372036s854ms775us808ns", None),
    ("-9223372036s854ms775us808ns", Some((-9223372036854775808, "-2562047h47m16.854775808s"))),
    ("-9223372036s854ms775us809ns", None),
    ("2562047h47m16.854775807s", Some((9223372036854775807, "2562047h47m16.854775807s"))),
    ("2562047h47m16.854775808s", None),
    ("-2562047h47m16.854775808s", Some((-9223372036854775808, "-2562047h47m16.854775808s"))),
    ("2562048h", None),
    ("153722867.2809129m", Some((9223372036854774000, "2562047h47m16.854774s"))),
    ("9223372036854775810ns", None),
    ("18446744073709551616ns", None),
    ("18446744073709551615s", None),
    ("99999999999999999999999999s", None),
    ("00000000000000000000000000000001s", Some((1000000000, "1s"))),
    ("9223372036854775807ns1ns", None),
    ("9223372036854775808ns0ns", None),
    ("9223372036854775808ns9223372036854775808ns", Some((0, "0s"))),
    ("-9223372036854775808ns9223372036854775808ns", Some((0, "0s"))),
    ("-9223372036854775808ns1ns", None),
    ("-", None),
    ("+", None),
    ("--1s", None),
    ("+-1s", None),
    ("1", None),
    ("3.5", None),
    ("-1", None),
    ("0.0", None),
    (".", None),
    ("-.", None),
    ("..", None),
    ("1..5s", None),
    (".s", None),
    ("-.s", None),
    ("+.s", None),
    ("1.5.5s", None),
    ("s", None),
    ("h1", None),
    ("1h2", None),
    ("1h-2m", None),
    ("1h+2m", None),
    ("1h 30m", None),
    (" 1h", None),
    ("1h ", None),
    ("1S", None),
    ("1H", None),
    ("1Ms", None),
    ("1d", None),
    ("1w", None),
    ("1y", None),
    ("1sec", None),
    ("1mins", None),
    ("1e3s", None),
    ("1_000s", None),
    ("1,5h", None),
    ("0x10s", None),
    ("∞s", None),
    ("１s", None),
    ("1μ", None),
    ("1µ", None),
    ("1n", None),
    ("1u", None),
    ("1nss", None),
    ("5m!", None),
    ("1h30", None),
    ("751049.999999999999999999999999999us", Some((751050000, "751.05ms"))),
    ("4710.9999999999999999999999999999999999999μs", Some((4711000, "4.711ms"))),
    ("4762004680042002.9999999999999999999999ns", Some((4762004680042003, "1322h46m44.680042003s"))),
    ("9.9999999999999999999999999μs", Some((10000, "10µs"))),
    ("2314.999999999999999999999999999h", Some((8334000000000000, "2315h0m0s"))),
    ("00000000000000000000.99999999999999999999999999999999ms", Some((1000000, "1ms"))),
    ("00.9999999999999999999999999999999999999h", Some((3600000000000, "1h0m0s"))),
    ("492070035.9999999999999999999999999999999999999999µs", Some((492070036000, "8m12.070036s"))),
    ("0.00000050444500h", Some((1816001, "1.816001ms"))),
    ("000.999999999999999999999us", Some((1000, "1µs"))),
    ("8046.9999999999999999999999999999999s", Some((8047000000000, "2h14m7s"))),
    ("900506709.99999999999999999999999399999999ns", Some((900506710, "900.50671ms"))),
    ("000000000000000000000050.9999999999999999999999ms", Some((51000000, "51ms"))),
    (".9999999999999999999999999999µs", Some((1000, "1µs"))),
    ("3991453708089039.99999999999999999999999999999999999999us", Some((3991453708089040000, "1108737h8m28.08904s"))),
    ("6.999999999999999999999μs", Some((7000, "7µs"))),
    ("720.99999999999999999m", Some((43260000000000, "12h1m0s"))),
    (".799999999999999999999999m", Some((48000000000, "48s"))),
    ("-2562047.78801h", Some((-9223372036836000000, "-2562047h47m16.836s"))),
];

/// What Go prints; the inputs above rarely reach these.
const PRINTED: &[(i64, &str)] = &[
    (1, "1ns"),
    (-1, "-1ns"),
    (999, "999ns"),
    (1_000, "1µs"),
    (1_100, "1.1µs"),
    (1_001, "1.001µs"),
    (999_999, "999.999µs"),
    (1_000_000, "1ms"),
    (2_000_001, "2.000001ms"),
    (999_999_999, "999.999999ms"),
    (1_000_000_000, "1s"),
    (1_000_000_001, "1.000000001s"),
    (59_999_999_999, "59.999999999s"),
    (60_000_000_000, "1m0s"),
    (3_599_999_999_999, "59m59.999999999s"),
    (3_600_000_000_000, "1h0m0s"),
    (-3_600_000_000_000, "-1h0m0s"),
    (86_400_000_000_000, "24h0m0s"),
    (i64::MAX, "2562047h47m16.854775807s"),
    (i64::MIN, "-2562047h47m16.854775808s"),
];

/// Of every magnitude alike, and of both signs.
fn nanos(random: &mut Random) -> i64 {
    let shift = random.next() % 64;
    random.next().cast_signed() >> shift
}

fn message(text: &str) -> String {
    text.parse::<GoDuration>().unwrap_err().to_string()
}

#[test]
fn parses_and_refuses_what_go_does_to_the_nanosecond() {
    for (text, expected) in GO {
        let parsed = text.parse::<GoDuration>().ok();
        assert_eq!(parsed.map(GoDuration::as_nanos), expected.map(|(nanos, _)| nanos), "{text:?}");
        assert_eq!(
            parsed.map(|parsed| parsed.to_string()).as_deref(),
            expected.map(|(_, text)| text),
            "{text:?}"
        );
    }
}

#[test]
fn prints_what_go_prints() {
    for (nanos, text) in PRINTED {
        assert_eq!(GoDuration::from_nanos(*nanos).to_string(), *text);
        assert_eq!(format!("{:?}", GoDuration::from_nanos(*nanos)), *text);
    }
    assert_eq!(format!("[{:>6}]", GoDuration::from_secs(5)), "[    5s]");
}

#[test]
fn what_is_printed_parses_to_the_same() {
    let mut random = Random(1);
    let extremes = [i64::MIN, i64::MIN + 1, -1, 0, 1, i64::MAX - 1, i64::MAX];
    let any = std::iter::repeat_with(|| nanos(&mut random)).take(20_000);
    for nanos in extremes.into_iter().chain(any) {
        let text = GoDuration::from_nanos(nanos).to_string();
        assert_eq!(text.parse(), Ok(GoDuration::from_nanos(nanos)), "{text}");
    }
}

#[test]
fn a_fraction_shrinks_to_nothing_without_harm() {
    // Scales beyond what `f64` holds exactly, and beyond what it holds at all.
    for zeros in [25, 300, 307, 308, 309, 400] {
        let text = format!("1.{}9h", "0".repeat(zeros));
        assert_eq!(text.parse(), Ok(GoDuration::from_hours(1)), "{zeros} zeros");
    }
}

#[test]
fn random_text_never_panics() {
    const PIECES: &[&str] =
        &["0", "9", "5", ".", "-", "+", "n", "u", "m", "s", "h", "µ", "μ", " ", "\0", "é", "∞"];
    let mut random = Random(2);
    for _ in 0..20_000 {
        let length = random.next() % 24;
        let bytes: Vec<u8> = (0..length).map(|_| random.next().to_le_bytes()[0]).collect();
        let _ = String::from_utf8_lossy(&bytes).parse::<GoDuration>();

        let text: String = (0..length)
            .map(|_| PIECES[usize::try_from(random.next() % PIECES.len() as u64).unwrap()])
            .collect();
        if let Ok(parsed) = text.parse::<GoDuration>() {
            assert_eq!(parsed.to_string().parse(), Ok(parsed), "{text:?}");
        }
    }
}

#[test]
fn hostile_text_takes_time_linear_in_its_length() {
    fn time(text: &str) -> std::time::Duration {
        let start = std::time::Instant::now();
        let _ = std::hint::black_box(text).parse::<GoDuration>();
        start.elapsed()
    }
    const SHORT: usize = 1 << 11;
    for (head, piece, tail) in [
        ("", "0", "1s"),
        ("", "9", "s"),
        (".", "0", "1s"),
        (".", "9", "s"),
        ("", "1ns", ""),
        ("-", "0.5ns", ""),
        ("1", "s", ""),
        ("1", "µ", ""),
        ("1.", ".", ""),
    ] {
        let text = |length: usize| format!("{head}{}{tail}", piece.repeat(length / piece.len()));
        let (short, long) = (text(SHORT), text(32 * SHORT));
        let least = (0..10).map(|_| time(&short)).min().unwrap();
        // 32 times the length: linear is 32 times the time, quadratic 1024 times. Less than a
        // microsecond, for a text that is refused at its start, is too short to be compared.
        let limit = 200 * least.max(std::time::Duration::from_micros(1));
        // Other load on the machine only makes a measurement longer, so one is enough.
        assert!((0..100).any(|_| time(&long) < limit), "{head}{piece}…{tail} takes over {limit:?}");
    }
}

#[test]
fn an_error_says_what_would_be_right_and_not_what_was_written() {
    assert_eq!(message("5"), "needs a unit: write `5m`, `1h30m` or `300ms`");
    assert_eq!(message("1h30"), message("5"));
    assert!(message("").starts_with("is empty"));
    assert!(message("-").starts_with("is empty"));
    assert!(message("soon").starts_with("needs a number"));
    assert!(message("1 h").starts_with("has an unknown unit"));
    assert!(message("7d").contains("a day is `24h`"));
    assert!(message("9999999h").starts_with("is out of range"));
    for text in ["hunter2", "77hunters", "7777777777777777777777s", "7777hunters1"] {
        let message = message(text);
        assert!(!message.contains("hunter") && !message.contains("777"), "{message}");
    }
}

#[test]
fn constructors_saturate() {
    assert_eq!(GoDuration::from_millis(1500).to_string(), "1.5s");
    assert_eq!(GoDuration::from_secs(-90).to_string(), "-1m30s");
    assert_eq!(GoDuration::from_hours(2_562_047).to_string(), "2562047h0m0s");
    let constructors = [
        GoDuration::from_millis,
        GoDuration::from_secs,
        GoDuration::from_mins,
        GoDuration::from_hours,
    ];
    for constructor in constructors {
        assert_eq!(constructor(i64::MAX), GoDuration::MAX);
        assert_eq!(constructor(i64::MIN), GoDuration::MIN);
        assert_eq!(constructor(0), GoDuration::ZERO);
    }
    assert_eq!(GoDuration::from_hours(2_562_048), GoDuration::MAX);
}

#[test]
fn a_duration_has_exactly_one_sign() {
    for (nanos, signs) in
        [(-1, [true, false, false]), (0, [false, true, false]), (1, [false, false, true])]
    {
        let it = GoDuration::from_nanos(nanos);
        assert_eq!([it.is_negative(), it.is_zero(), it.is_positive()], signs);
    }
    assert_eq!(GoDuration::default(), GoDuration::ZERO);
    assert!(GoDuration::MIN < GoDuration::ZERO && GoDuration::ZERO < GoDuration::MAX);
}

#[test]
fn converts_to_and_from_the_standard_duration_within_range() {
    let longest = Duration::from_nanos(i64::MAX.cast_unsigned());
    assert_eq!(GoDuration::try_from(longest), Ok(GoDuration::MAX));
    assert_eq!(Duration::try_from(GoDuration::MAX), Ok(longest));
    assert_eq!(Duration::try_from(GoDuration::ZERO), Ok(Duration::ZERO));

    let error = GoDuration::try_from(longest + Duration::from_nanos(1)).unwrap_err();
    assert!(error.to_string().contains("must not be longer"), "{error}");
    assert!(GoDuration::try_from(Duration::MAX).is_err());
    for negative in [GoDuration::from_nanos(-1), GoDuration::MIN] {
        let error = Duration::try_from(negative).unwrap_err();
        assert_eq!(error.to_string(), "must not be negative");
    }
}

#[test]
fn is_a_string_in_json() {
    assert_eq!(to_value(GoDuration::from_mins(90)).unwrap(), json!("1h30m0s"));
    assert_eq!(from_value::<GoDuration>(json!("1.5h")).unwrap(), GoDuration::from_mins(90));
    // Written with an escape, so that serde hands over an owned string.
    assert_eq!(from_str::<GoDuration>(r#""5\u006d""#).unwrap(), GoDuration::from_mins(5));

    let error = from_value::<GoDuration>(json!("5")).unwrap_err();
    assert_eq!(error.to_string(), "needs a unit: write `5m`, `1h30m` or `300ms`");
    let error = from_value::<GoDuration>(json!(null)).unwrap_err();
    assert!(error.to_string().contains("a duration such as `5m` or `1h30m`"), "{error}");
}

#[test]
fn the_schema_is_inline_and_leaves_the_description_to_the_field() {
    #[derive(schemars::JsonSchema)]
    #[allow(dead_code, reason = "only its schema is of interest")]
    struct Params {
        /// The time between two runs.
        every: GoDuration,
    }
    let schema = to_value(schemars::schema_for!(Params)).unwrap();
    assert_eq!(
        schema["properties"]["every"],
        json!({ "type": "string", "format": "go-duration", "description": "The time between two runs." })
    );
    assert_eq!(schema["required"], json!(["every"]));
    assert!(schema.get("$defs").is_none());
}
