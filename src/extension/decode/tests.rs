use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Debug;
use std::net::IpAddr;
use std::num::{NonZeroI8, NonZeroU16};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de};

use super::*;
use crate::extension::describe;
use crate::extension::none::NoParams;
use crate::extension::tests::Random;

mod alternatives;
mod generated;

fn fields<T: de::DeserializeOwned + JsonSchema>() -> Fields {
    describe::fields(&describe::schema::<T>(), field_names(super::read::<T>))
}

fn decode_one<T: de::DeserializeOwned>(
    key: &str,
    answer: &str,
    declared: &Fields,
) -> Result<(), String> {
    super::decode_one(super::read::<T>, key, answer, declared)
}

fn read<T: de::DeserializeOwned + JsonSchema>(pairs: &[(&str, &str)]) -> Result<T, Vec<Problem>> {
    decode(&Settings::new(pairs.iter().copied()), &fields::<T>())
}

/// What is wrong, as "key: message" or just "message".
fn wrong<T: de::DeserializeOwned + JsonSchema + Debug>(pairs: &[(&str, &str)]) -> Vec<String> {
    let problems = read::<T>(pairs).unwrap_err();
    let line = |problem: Problem| match problem.key {
        Some(key) => format!("{key}: {}", problem.message),
        None => problem.message,
    };
    problems.into_iter().map(line).collect()
}

/// What is wrong with `value` for a single setting of type `T`.
fn refused<T: de::DeserializeOwned + JsonSchema + Debug>(value: &str) -> String {
    let problems = read::<One<T>>(&[("it", value)]).unwrap_err();
    let [Problem { key: Some(key), message, .. }] = problems.as_slice() else {
        panic!("{problems:?}");
    };
    assert_eq!(key, "it");
    message.clone()
}

fn one<T: de::DeserializeOwned + JsonSchema + Debug>(value: &str) -> T {
    read::<One<T>>(&[("it", value)]).unwrap().it
}

#[derive(Debug, Deserialize, serde::Serialize, JsonSchema)]
struct One<T> {
    it: T,
}

#[derive(Debug, PartialEq, Deserialize, JsonSchema)]
struct Params {
    /// The time between two runs, such as `5m`.
    ///
    /// More that is too long to repeat.
    every: Text,
    #[serde(default)]
    jitter: u32,
    level: Option<Level>,
    retries: u8,
    #[serde(rename = "max-runs", default)]
    max_runs: Option<u64>,
}

/// A type of another crate, say, whose errors quote the value.
#[derive(Debug, PartialEq, JsonSchema)]
struct Text(#[schemars(with = "String")] String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <&str>::deserialize(deserializer)?;
        if text.starts_with("ok") {
            return Ok(Self(text.to_owned()));
        }
        Err(de::Error::custom("no good, try `ok`"))
    }
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Level {
    Low,
    High,
}

#[test]
fn settings_become_the_struct_whatever_the_case_of_their_keys() {
    let params: Params =
        read(&[("EVERY", "ok"), ("Level", "high"), ("retries", "3"), ("MAX-runs", "9")]).unwrap();
    let expected = Params {
        every: Text("ok".to_owned()),
        jitter: 0,
        level: Some(Level::High),
        retries: 3,
        max_runs: Some(9),
    };
    assert_eq!(params, expected);
}

#[test]
fn everything_that_is_wrong_is_reported_at_once() {
    let wrong = wrong::<Params>(&[
        ("Level", "middle"),
        ("retries", "256"),
        ("JITTER", "1"),
        ("jitter", "2"),
        ("max_runs", "1"),
        ("colour", "red"),
    ]);
    assert_eq!(
        wrong,
        [
            "level: must be one of `low`, `high`",
            "retries: must be a whole number from 0 to 255",
            "every: is required: The time between two runs, such as `5m`",
            "colour: unknown; expected one of `every`, `jitter`, `level`, `retries`, \
             `max-runs`",
            "jitter: given twice, as `JITTER` and `jitter`; keys are case-insensitive, so give it \
             once",
            "max_runs: unknown; did you mean `max-runs`?",
        ]
    );
}

#[test]
fn a_required_setting_with_a_bad_value_is_not_reported_as_missing() {
    let wrong = wrong::<Params>(&[("every", "never"), ("retries", "x")]);
    assert_eq!(wrong.len(), 2, "{wrong:?}");
    assert!(wrong[0].starts_with("every: no good"), "{wrong:?}");
    assert_eq!(wrong[1], "retries: must be a whole number from 0 to 255");
}

#[test]
fn a_required_setting_without_a_description_is_reported_by_its_kind() {
    assert_eq!(wrong::<One<Level>>(&[]), ["it: is required: one of `low`, `high`"]);
}

#[test]
fn a_typo_gets_a_suggestion() {
    for typo in ["evry", "eevry", "evrey", "EVERYY", "levl", "retrys"] {
        let all = [("every", "ok"), ("retries", "1"), (typo, "1")];
        assert!(wrong::<Params>(&all)[0].contains("did you mean"), "{typo}");
    }
}

#[test]
fn no_parameters_means_none() {
    #[derive(Debug, Deserialize, JsonSchema)]
    struct Unit;
    assert!(read::<NoParams>(&[]).is_ok());
    assert!(read::<Unit>(&[]).is_ok());
    read::<()>(&[]).unwrap();
    let none = ["every: unknown; this extension has no settings of this kind"];
    assert_eq!(wrong::<NoParams>(&[("every", "5m")]), none);
    assert_eq!(wrong::<Unit>(&[("every", "5m")]), none);
    assert_eq!(wrong::<()>(&[("every", "5m")]), none);
}

#[test]
fn whole_numbers_are_reported_with_their_range() {
    assert_eq!(one::<u64>("18446744073709551615"), u64::MAX);
    assert_eq!(one::<i128>("-5"), -5);
    assert_eq!(refused::<u32>("-1"), "must be a whole number from 0 to 4294967295");
    assert_eq!(refused::<i8>("128"), "must be a whole number from -128 to 127");
    assert_eq!(refused::<u8>(""), "must be a whole number from 0 to 255");
    assert_eq!(refused::<NonZeroU16>("0"), "must be a whole number from 1 to 65535");
    assert_eq!(refused::<NonZeroI8>("0"), "must be a whole number from -128 to 127, other than 0");
}

#[test]
fn declared_ranges_hold_for_numbers_alone_in_options_and_in_lists() {
    #[derive(Deserialize, JsonSchema, Debug)]
    #[allow(dead_code, reason = "it is read, and nothing else")]
    struct Bounded {
        #[schemars(range(min = 1, max = 5))]
        #[serde(default)]
        retries: Option<u8>,
        #[schemars(range(min = -0.5))]
        #[serde(default)]
        weight: f64,
        #[schemars(range(max = 1.0))]
        #[serde(default)]
        load: f64,
        #[schemars(range(min = 0.5, max = 2.5))]
        #[serde(default)]
        factor: f32,
        #[schemars(inner(range(max = 23)))]
        #[serde(default)]
        hours: Vec<u32>,
    }
    for (key, value) in [("retries", "1"), ("retries", "5"), ("weight", "-0.5"), ("hours", "0,23")]
    {
        read::<Bounded>(&[(key, value)]).unwrap();
    }
    let wrong = |key: &str, value: &str| wrong::<Bounded>(&[(key, value)]);
    for value in ["0", "6", "x"] {
        assert_eq!(
            wrong("retries", value),
            ["retries: must be a whole number from 1 to 5"],
            "{value}"
        );
    }
    assert_eq!(wrong("weight", "-0.6"), ["weight: must be a number, at least -0.5"]);
    assert_eq!(wrong("load", "1.1"), ["load: must be a number, at most 1"]);
    for value in ["0.4", "2.6", "x"] {
        assert_eq!(wrong("factor", value), ["factor: must be a number from 0.5 to 2.5"], "{value}");
    }
    assert!(wrong("hours", "7, 24")[0].contains("from 0 to 23"), "{:?}", wrong("hours", "7, 24"));
}

#[test]
fn numbers_are_finite() {
    assert!((one::<f64>("1e3") - 1000.0).abs() < 1e-9);
    assert!((one::<f32>("-2.5") + 2.5).abs() < 1e-6);
    for value in ["nan", "inf", "-inf", "1e999", "two", ""] {
        assert!(refused::<f64>(value).starts_with("must be a number, such as"), "{value}");
    }
    assert!(refused::<f32>("1e39").starts_with("must be a number from -3.4e38 to 3.4e38"));
}

#[test]
fn booleans_are_parsed_as_in_go() {
    for value in ["1", "t", "T", "true", "TRUE", "True"] {
        assert!(one::<bool>(value), "{value}");
    }
    for value in ["0", "f", "F", "false", "FALSE", "False"] {
        assert!(!one::<bool>(value), "{value}");
    }
    for value in ["", "yes", "tRUE", " true"] {
        assert_eq!(refused::<bool>(value), "must be true or false");
    }
}

#[test]
fn choices_match_by_name_and_then_without_regard_to_case() {
    #[derive(Debug, PartialEq, Deserialize, JsonSchema)]
    enum Case {
        #[serde(rename = "a")]
        Lower,
        #[serde(rename = "A", alias = "long")]
        Upper,
    }
    #[derive(Debug, PartialEq, Deserialize, JsonSchema)]
    enum Lenient {
        Known,
        #[serde(other)]
        Unknown,
    }
    #[derive(Debug, Deserialize, JsonSchema)]
    enum Single {
        Only,
    }
    assert_eq!(one::<Level>("HIGH"), Level::High);
    assert_eq!(one::<Case>("A"), Case::Upper);
    assert_eq!(one::<Case>("a"), Case::Lower);
    assert_eq!(one::<Case>("LONG"), Case::Upper);
    assert_eq!(one::<Lenient>("known"), Lenient::Known);
    assert_eq!(one::<Lenient>("whatever"), Lenient::Unknown);
    assert_eq!(refused::<Level>(""), "must be one of `low`, `high`");
    assert_eq!(refused::<Single>("other"), "must be `Only`");
    assert!(matches!(one::<Single>("only"), Single::Only));
}

#[test]
fn texts_wrappers_and_options_are_read() {
    #[derive(Debug, PartialEq, Deserialize, JsonSchema)]
    struct Port(u16);
    assert_eq!(one::<String>(" as it is "), " as it is ");
    assert_eq!(one::<char>("ß"), 'ß');
    assert_eq!(refused::<char>("ab"), "must be a single character");
    assert_eq!(one::<Port>("80"), Port(80));
    assert_eq!(refused::<Port>("http"), "must be a whole number from 0 to 65535");
    assert_eq!(one::<Option<String>>(""), Some(String::new()));
    assert_eq!(refused::<Option<u8>>(""), "must be a whole number from 0 to 255");
    one::<()>("");
    assert_eq!(refused::<()>("x"), "must be empty");
    assert_eq!(one::<IpAddr>("::1"), IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]));
    assert_eq!(refused::<IpAddr>("localhost"), "invalid IP address syntax");
    assert_eq!(one::<serde_json::Value>("5"), serde_json::json!("5"));
}

#[test]
fn bytes_are_those_of_the_text() {
    #[derive(Debug, JsonSchema)]
    struct Bytes(#[schemars(with = "String")] Vec<u8>);
    impl<'de> Deserialize<'de> for Bytes {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct Visitor;
            impl de::Visitor<'_> for Visitor {
                type Value = Bytes;
                fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str("bytes")
                }
                fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Bytes, E> {
                    Ok(Bytes(bytes.to_vec()))
                }
            }
            deserializer.deserialize_bytes(Visitor)
        }
    }
    assert_eq!(one::<Bytes>("aß").0, "aß".as_bytes());
}

#[test]
fn lists_are_separated_by_commas() {
    assert_eq!(one::<Vec<u8>>("1, 2 ,3"), [1, 2, 3]);
    assert_eq!(one::<Vec<String>>("a"), ["a"]);
    assert!(one::<Vec<String>>(" ").is_empty());
    assert_eq!(one::<BTreeSet<Level>>("high,low,HIGH").len(), 2);
    assert_eq!(one::<(u8, String)>("1,x"), (1, "x".to_owned()));
    assert_eq!(one::<[bool; 2]>("t,f"), [true, false]);
    assert_eq!(one::<Option<Vec<u8>>>("1"), Some(vec![1]));
    assert_eq!(
        refused::<Vec<u8>>("1,x"),
        "value 2 of the list: must be a whole number from 0 to 255"
    );
    for value in ["1", "1,2,3", ""] {
        assert_eq!(refused::<(u8, u8)>(value), "must be 2 values, separated by commas");
    }
    assert_eq!(refused::<[u8; 1]>("1,2"), "must be 1 value");
    assert_eq!(refused::<Vec<u8>>(&",".repeat(1_000_000)), "must have at most 10000 values");
}

#[test]
fn nested_types_are_refused_as_what_they_are() {
    #[derive(Debug, Deserialize, JsonSchema)]
    enum Rich {
        #[expect(dead_code)]
        Newtype(u8),
        #[expect(dead_code)]
        Struct { a: u8 },
    }
    for message in [
        refused::<NoParams>("x"),
        refused::<BTreeMap<String, String>>("x"),
        refused::<Vec<Vec<u8>>>("1").replace("value 1 of the list: ", ""),
        refused::<std::time::Duration>("5s"),
        refused::<Rich>("Newtype"),
        refused::<Rich>("struct"),
    ] {
        assert!(message.starts_with("cannot be set: this extension declares"), "{message}");
    }
}

#[test]
fn a_nested_type_is_found_where_the_type_does_not_ask_for_a_type() {
    #[derive(Debug, Deserialize, JsonSchema)]
    #[expect(dead_code)]
    struct Flattened {
        fine: u8,
        #[serde(flatten)]
        part: One<NoParams>,
    }
    #[derive(Debug, Deserialize, JsonSchema)]
    #[serde(untagged)]
    #[expect(dead_code)]
    enum Choice {
        Number(u8),
        Nested { a: u8 },
    }
    assert_eq!(nested(super::read::<Flattened>, &fields::<Flattened>()), Some("it"));
    assert_eq!(nested(super::read::<One<Choice>>, &fields::<One<Choice>>()), None);
    // What cannot be set is not offered.
    assert_eq!(fields::<One<Choice>>()[0].kind, "whole number from 0 to 255");
}

#[derive(Debug, Deserialize, JsonSchema)]
struct Aliased {
    #[serde(alias = "interval", alias = "a_while")]
    every: u32,
    #[serde(alias = "delay")]
    jitter: u32,
    last: u32,
}

#[test]
fn an_alias_is_a_name_like_any_other() {
    let params: Aliased = read(&[("Interval", "1"), ("delay", "2"), ("last", "3")]).unwrap();
    assert_eq!((params.every, params.jitter, params.last), (1, 2, 3));
    let twice =
        wrong::<Aliased>(&[("every", "1"), ("interval", "1"), ("delay", "1"), ("last", "1")]);
    assert_eq!(twice, ["every: given twice, under two of its names; give it once"]);
}

#[test]
fn a_setting_given_by_its_alias_is_not_reported_as_missing() {
    let wrong = wrong::<Aliased>(&[("interval", "x"), ("jitter", "2")]);
    assert_eq!(
        wrong,
        [
            "interval: must be a whole number from 0 to 4294967295",
            "last: is required: whole number, at least 0"
        ]
    );
}

#[derive(Debug, Deserialize, JsonSchema)]
struct Common {
    retries: u8,
    #[serde(default)]
    quiet: bool,
    hosts: Vec<IpAddr>,
    text: Option<Text>,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct Flat {
    alpha: u8,
    #[serde(flatten)]
    common: Common,
}

#[test]
fn a_flattened_struct_is_read_like_any_other() {
    let all = [("ALPHA", "1"), ("Retries", "2"), ("QUIET", "t"), ("hosts", "::1, ::2")];
    let flat: Flat = read(&all).unwrap();
    assert_eq!((flat.alpha, flat.common.retries, flat.common.quiet), (1, 2, true));
    assert_eq!(flat.common.hosts.len(), 2);
    assert_eq!(flat.common.text, None);
}

#[test]
fn what_is_wrong_in_a_flattened_struct_is_reported_with_its_key() {
    let wrong = wrong::<Flat>(&[
        ("alpha", "1"),
        ("retries", "256"),
        ("quiet", "maybe"),
        ("text", "a secret"),
        ("host", "::1"),
    ]);
    assert_eq!(
        wrong,
        [
            "quiet: must be true or false",
            "retries: must be a whole number from 0 to 255",
            "text: no good, try `ok`",
            "hosts: is required: list of IP addresses, separated by commas",
            "host: unknown; did you mean `hosts`?",
        ]
    );
}

#[test]
fn a_flattened_map_takes_all_other_keys() {
    #[derive(Debug, Deserialize, JsonSchema)]
    struct Open {
        every: u8,
        #[serde(flatten)]
        rest: HashMap<String, u16>,
    }
    let open: Open = read(&[("EVERY", "1"), ("Other", "2")]).unwrap();
    assert_eq!((open.every, &open.rest), (1, &HashMap::from([("Other".to_owned(), 2)])));
    let wrong = wrong::<Open>(&[("every", "1"), ("other", "70000")]);
    assert_eq!(wrong, ["other: must be a whole number from 0 to 65535"]);
}

#[test]
fn a_map_takes_any_key_once() {
    let map: BTreeMap<String, String> = read(&[("a", "1"), ("B", "2")]).unwrap();
    assert_eq!(
        map.into_iter().collect::<Vec<_>>(),
        [("B".into(), "2".into()), ("a".into(), "1".into())]
    );
    let wrong = wrong::<BTreeMap<String, String>>(&[("a", "1"), ("A", "2")]);
    assert_eq!(
        wrong,
        ["A: given twice, as `A` and `a`; keys are case-insensitive, so give it once"]
    );
}

#[test]
fn a_tagged_enum_can_declare_settings() {
    #[derive(Debug, PartialEq, Deserialize, JsonSchema)]
    #[serde(tag = "kind", rename_all = "lowercase")]
    enum Tagged {
        Fixed { every: u8 },
        Random { most: f64, least: Option<f64> },
    }
    assert_eq!(read(&[("KIND", "fixed"), ("every", "5")]), Ok(Tagged::Fixed { every: 5 }));
    let random = Tagged::Random { most: 2.0, least: None };
    assert_eq!(read(&[("kind", "random"), ("most", "2")]), Ok(random));
    assert_eq!(
        wrong::<Tagged>(&[("kind", "random"), ("least", "two")]),
        ["least: must be a number, such as `2.5`", "most: is required: number"]
    );
}

#[derive(Debug, Deserialize)]
#[serde(try_from = "Unchecked")]
struct Checked;

#[derive(Deserialize, JsonSchema)]
#[expect(dead_code)]
struct Unchecked {
    least: String,
    most: String,
    #[serde(default)]
    n: u8,
}

impl TryFrom<Unchecked> for Checked {
    type Error = String;

    fn try_from(raw: Unchecked) -> Result<Self, String> {
        match raw.n {
            0 => Err("they do not go together".to_owned()),
            _ => Ok(Self),
        }
    }
}

fn checked(pairs: &[(&str, &str)]) -> Vec<String> {
    let problems = decode::<Checked>(&Settings::new(pairs.iter().copied()), &fields::<Unchecked>())
        .unwrap_err();
    problems.into_iter().map(|problem| format!("{:?} {}", problem.key, problem.message)).collect()
}

#[test]
fn a_failure_of_the_whole_has_no_key_and_no_value() {
    let wrong = checked(&[("least", "se\"cret"), ("most", "hush\nhush")]);
    assert_eq!(wrong, ["None they do not go together"]);
}

#[test]
fn failures_that_an_omitted_setting_may_have_caused_are_not_reported() {
    let wrong = checked(&[("least", "a"), ("most", "b"), ("n", "-1")]);
    assert_eq!(wrong, ["Some(\"n\") must be a whole number from 0 to 255"]);
}

#[test]
fn an_authors_words_are_passed_on_as_they_are() {
    #[derive(Debug, JsonSchema)]
    struct Time(#[schemars(with = "String")] ());
    impl<'de> Deserialize<'de> for Time {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let text = String::deserialize(deserializer)?;
            if text.len() > 5 {
                return Err(de::Error::custom("é".repeat(10_000)));
            }
            Err(de::Error::custom("must be a time of day as HH:MM,\nsuch as `02:30`"))
        }
    }
    // The value is a part of the example.
    let whole = "must be a time of day as HH:MM,\nsuch as `02:30`";
    assert_eq!(refused::<Time>("2:30"), whole);
    assert_eq!(refused::<Vec<Time>>("2:30"), format!("value 1 of the list: {whole}"));
    // Bounded in bytes.
    let long = refused::<Time>("too long");
    assert!(long.len() <= 1_000 + '…'.len_utf8() && long.ends_with("é…"), "{}", long.len());
}

#[test]
fn keys_are_shown_short_and_on_one_line() {
    let key = format!("a\n\u{202e}\u{7}{}", "b".repeat(100));
    let wrong = read::<NoParams>(&[(&key, "x")]).unwrap_err();
    let shown = wrong[0].key.as_deref().unwrap();
    assert_eq!(shown, format!("a\\n\\u{{202e}}\\u{{7}}{}…", "b".repeat(60)));
}

#[test]
fn one_answer_is_checked_without_the_others() {
    let declared = fields::<Params>();
    let check = |key, answer| decode_one::<Params>(key, answer, &declared);
    assert_eq!(check("retries", "5"), Ok(()));
    assert_eq!(check("RETRIES", "5"), Ok(()));
    assert_eq!(check("every", "ok"), Ok(()));
    assert_eq!(check("retries", "many"), Err("must be a whole number from 0 to 255".to_owned()));
    assert_eq!(check("retrys", "5"), Err("unknown; did you mean `retries`?".to_owned()));
    let flat = fields::<Flat>();
    assert_eq!(decode_one::<Flat>("retries", "5", &flat), Ok(()));
    assert_eq!(decode_one::<Flat>("quiet", "5", &flat), Err("must be true or false".to_owned()));
    assert_eq!(decode_one::<Checked>("least", "5", &fields::<Unchecked>()), Ok(()));
}

#[test]
fn ten_thousand_unknown_keys_are_answered_briefly() {
    let pairs = (0..10_000).map(|n| (format!("{n:0>60}"), "value"));
    let settings = Settings::new(pairs.chain([("retries".to_owned(), "x")]));
    let problems = decode::<Params>(&settings, &fields::<Params>()).unwrap_err();
    assert_eq!(problems.len(), MAX_PROBLEMS + 1);
    assert_eq!(problems[0].key.as_deref(), Some("retries"));
    assert_eq!(problems[1].key.as_deref(), Some("every"));
    assert_eq!(problems[MAX_PROBLEMS], Problem::general("and 9982 more"));
}

#[test]
fn ten_thousand_bad_values_are_answered_briefly() {
    let settings = Settings::new((0..10_000).map(|n| (format!("{n}"), "x")));
    let declared = fields::<BTreeMap<String, u8>>();
    let problems = decode::<BTreeMap<String, u8>>(&settings, &declared).unwrap_err();
    assert_eq!(problems.len(), MAX_PROBLEMS + 1);
    assert_eq!(problems[MAX_PROBLEMS], Problem::general("and more"));
}

/// Text of characters that are in none of the words that messages are made of.
fn text(random: &mut Random) -> String {
    const CHARS: [char; 18] = [
        'z', 'q', 'X', 'J', '"', '\'', '\\', '\n', '\t', '\r', '\0', 'é', '☃', '\u{301}',
        '\u{202e}', ' ', ',', '7',
    ];
    (0..random.below(12)).map(|_| CHARS[random.below(CHARS.len())]).collect()
}

#[test]
fn no_value_is_ever_in_a_problem() {
    #[derive(Debug, Deserialize, JsonSchema)]
    #[serde(untagged)]
    enum Any {
        Number(#[expect(dead_code)] u8),
        Ip(#[expect(dead_code)] IpAddr),
    }
    #[derive(Debug, Deserialize, JsonSchema)]
    #[expect(dead_code)]
    struct Everything {
        text: Text,
        number: u8,
        float: f64,
        truth: bool,
        level: Level,
        list: Vec<Text>,
        pair: (u8, Text),
        any: Any,
        nested: NoParams,
        nothing: (),
    }
    #[derive(Debug, Deserialize, JsonSchema)]
    #[expect(dead_code)]
    struct Flattened {
        alpha: Text,
        #[serde(flatten)]
        everything: Everything,
    }
    const KEYS: [&str; 15] = [
        "text", "number", "float", "truth", "level", "list", "pair", "any", "nested", "nothing",
        "alpha", "least", "most", "NUMBER", "numbr",
    ];
    fn check<T: de::DeserializeOwned>(settings: &Settings, declared: &Fields) {
        let Err(problems) = decode::<T>(settings, declared) else { return };
        assert!(!problems.is_empty());
        for (key, value) in settings.iter() {
            let _ = decode_one::<T>(key, value, declared).map_err(|message| {
                assert!(value.chars().count() < 4 || !message.contains(value), "{message:?}");
            });
            let debug = format!("{value:?}");
            let escaped = debug.trim_matches('"');
            for problem in &problems {
                let leak = problem.message.contains(value) || problem.message.contains(escaped);
                assert!(value.chars().count() < 4 || !leak, "{value:?} in {problem:?}");
            }
        }
    }
    let (everything, flattened) = (fields::<Everything>(), fields::<Flattened>());
    let unchecked = fields::<Unchecked>();
    let mut random = Random(4);
    for _ in 0..3_000 {
        let count = random.below(KEYS.len());
        let pairs: Vec<_> =
            (0..count).map(|_| (KEYS[random.below(KEYS.len())], text(&mut random))).collect();
        let settings = Settings::new(pairs);
        check::<Everything>(&settings, &everything);
        check::<Flattened>(&settings, &flattened);
        let settings = Settings::new([("least", text(&mut random)), ("most", text(&mut random))]);
        check::<Checked>(&settings, &unchecked);
    }
}

#[cfg(feature = "cron")]
#[test]
fn a_schedule_is_refused_without_being_repeated() {
    use crate::{Cron, TimeZone};

    assert_eq!(one::<Cron>("30 2 * * 1,2 *").to_string(), "30 2 * * 1,2 *");
    assert_eq!(
        refused::<Cron>("30 hunter * * * *"),
        "the hour must be a number, 0 to 23, not a name"
    );
    assert_eq!(one::<TimeZone>("europe/berlin").to_string(), "Europe/Berlin");
    assert!(refused::<TimeZone>("hunter").starts_with("is not a time zone: write an IANA name"));
    assert_eq!(one::<Vec<TimeZone>>("UTC, Asia/Tokyo").len(), 2);
}
