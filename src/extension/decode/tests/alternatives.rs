//! Types that do not ask serde for a type: flattened, untagged, tagged, in combinations.

use serde::Serialize;

use super::*;
use crate::extension::GoDuration;

#[derive(Debug, PartialEq, Deserialize, JsonSchema)]
struct Notify {
    every: u32,
    #[serde(flatten)]
    alert: Option<Alert>,
}

#[derive(Debug, PartialEq, Deserialize, JsonSchema)]
struct Alert {
    channel: String,
    threshold: u8,
}

#[test]
fn half_of_an_optional_group_is_refused_for_what_is_missing() {
    assert_eq!(read(&[("every", "5")]), Ok(Notify { every: 5, alert: None }));
    let alert = Some(Alert { channel: "ops".to_owned(), threshold: 3 });
    let all = [("every", "5"), ("channel", "ops"), ("THRESHOLD", "3")];
    assert_eq!(read(&all), Ok(Notify { every: 5, alert }));
    assert_eq!(
        wrong::<Notify>(&[("every", "5"), ("channel", "ops")]),
        ["threshold: is required: whole number from 0 to 255"]
    );
    assert_eq!(
        wrong::<Notify>(&[("every", "5"), ("threshold", "1")]),
        ["channel: is required: text"]
    );
    assert_eq!(
        wrong::<Notify>(&[("every", "5"), ("channel", "ops"), ("threshold", "300")]),
        ["threshold: must be a whole number from 0 to 255"]
    );
}

#[derive(Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(untagged)]
enum Limit {
    Count(u32),
    Word(Word),
}

#[derive(Debug, PartialEq, Clone, Copy, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Word {
    All,
    #[serde(rename = "MOST", alias = "mostly")]
    Most,
}

#[test]
fn a_number_or_a_word_takes_both() {
    assert_eq!(fields::<One<Limit>>()[0].kind, "whole number, at least 0 or one of `all`, `MOST`");
    assert_eq!(one::<Limit>("5"), Limit::Count(5));
    assert_eq!(one::<Limit>("007"), Limit::Count(7));
    assert_eq!(one::<Limit>("ALL"), Limit::Word(Word::All));
    assert_eq!(one::<Limit>("most"), Limit::Word(Word::Most));
    // The schema has no aliases.
    assert_eq!(one::<Limit>("mostly"), Limit::Word(Word::Most));
    for text in ["many", "-1", "4294967296", ""] {
        assert_eq!(
            refused::<Limit>(text),
            "must be a whole number, at least 0 or one of `all`, `MOST`"
        );
    }
    assert_eq!(one::<Vec<Limit>>("5, all"), [Limit::Count(5), Limit::Word(Word::All)]);
    assert!(refused::<Vec<Limit>>("5, many").starts_with("value 2 of the list: must be"));
}

#[derive(Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(untagged)]
enum Scalar {
    Text(String),
    Truth(bool),
    Whole(i64),
    Number(f64),
}

#[test]
fn a_text_is_the_most_specific_of_what_it_may_be_and_loses_nothing() {
    for (text, value) in [
        ("5", Scalar::Whole(5)),
        ("-5", Scalar::Whole(-5)),
        ("2.5", Scalar::Number(2.5)),
        ("1e5", Scalar::Number(1e5)),
        ("true", Scalar::Truth(true)),
    ] {
        assert_eq!(one::<Scalar>(text), value);
    }
    for text in ["007", "+5", "T", "", "null", " 5", "5 ", "99999999999999999999999x"] {
        assert_eq!(one::<Scalar>(text), Scalar::Text(text.to_owned()));
    }
}

#[test]
fn texts_of_a_flattened_part_arrive_as_they_are() {
    #[derive(Debug, Deserialize, JsonSchema)]
    struct Flat {
        #[serde(flatten)]
        one: One<String>,
    }
    for text in ["007", "1e5", "true", "null", "", " x ", "a,b", "5"] {
        assert_eq!(read::<Flat>(&[("IT", text)]).unwrap().one.it, text);
    }
}

#[derive(Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(untagged)]
enum Hosts {
    One(String),
    Many(Vec<String>),
}

#[test]
fn one_or_many_take_both() {
    assert_eq!(one::<Hosts>("a"), Hosts::One("a".to_owned()));
    assert_eq!(one::<Hosts>("a, b"), Hosts::Many(vec!["a".to_owned(), "b".to_owned()]));
}

#[derive(Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(tag = "mode", rename_all = "lowercase")]
enum Mode {
    Fixed { size: u8 },
    Grown { size: u32, step: Option<String> },
    Share { size: f64 },
    Named { size: String },
    Off,
}

#[derive(Debug, PartialEq, Deserialize, JsonSchema)]
struct Outer<T> {
    name: String,
    #[serde(flatten)]
    inner: T,
}

#[test]
fn variants_may_share_a_setting_of_other_types() {
    fn check<T: de::DeserializeOwned + JsonSchema + Debug + PartialEq>(
        before: &[(&str, &str)],
        wrap: impl Fn(Mode) -> T,
    ) {
        let pairs = |more: &[(&'static str, &'static str)]| -> Vec<(String, String)> {
            let all = before.iter().chain(more.iter());
            all.map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
        };
        let read = |more: &[(&'static str, &'static str)]| {
            let settings = Settings::new(pairs(more));
            decode::<T>(&settings, &fields::<T>())
        };
        for (mode, size, value) in [
            ("fixed", "5", Mode::Fixed { size: 5 }),
            ("FIXED", "5", Mode::Fixed { size: 5 }),
            ("grown", "500", Mode::Grown { size: 500, step: None }),
            ("share", "0.5", Mode::Share { size: 0.5 }),
            ("share", "5", Mode::Share { size: 5.0 }),
            ("named", "5", Mode::Named { size: "5".to_owned() }),
            ("named", "0.50", Mode::Named { size: "0.50".to_owned() }),
        ] {
            let got = read(&[("mode", mode), ("size", size)]);
            assert_eq!(got, Ok(wrap(value)), "{mode} {size}");
        }
        assert_eq!(read(&[("mode", "off")]), Ok(wrap(Mode::Off)));
        let wrong = |more: &[(&'static str, &'static str)]| -> Vec<String> {
            let problems = read(more).unwrap_err();
            problems.into_iter().map(|it| format!("{:?} {}", it.key, it.message)).collect()
        };
        assert_eq!(
            wrong(&[("mode", "fixed"), ("size", "500")]),
            ["Some(\"size\") must be a whole number from 0 to 255"]
        );
        assert_eq!(
            wrong(&[("mode", "fixed"), ("size", "5"), ("step", "x")]),
            ["Some(\"step\") is not a setting of this `mode`"]
        );
        assert_eq!(
            wrong(&[("mode", "off"), ("size", "5")]),
            ["Some(\"size\") is not a setting of this `mode`"]
        );
        assert_eq!(
            wrong(&[("mode", "other"), ("size", "5")]),
            ["Some(\"mode\") must be one of `fixed`, `grown`, `share`, `named`, `off`"]
        );
        let missing = wrong(&[("mode", "grown")]);
        assert!(missing[0].starts_with("Some(\"size\") is required: "), "{missing:?}");
    }
    check::<Mode>(&[], |mode| mode);
    let name = [("name", "5")];
    check::<Outer<Mode>>(&name, |inner| Outer { name: "5".to_owned(), inner });
    check::<Outer<Option<Mode>>>(&name, |mode| Outer { name: "5".to_owned(), inner: Some(mode) });
    check::<Outer<Outer2<Mode>>>(&name, |inner| Outer {
        name: "5".to_owned(),
        inner: Outer2 { inner },
    });
}

#[derive(Debug, PartialEq, Deserialize, JsonSchema)]
struct Outer2<T> {
    #[serde(flatten)]
    inner: T,
}

#[derive(Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(untagged)]
enum When {
    Between { least: GoDuration, most: GoDuration },
    Every { every: GoDuration },
}

#[test]
fn settings_of_several_variants_are_refused_together_and_missing_ones_named() {
    let s = |text: &str| text.parse::<GoDuration>().unwrap();
    assert_eq!(read(&[("Every", "5s")]), Ok(When::Every { every: s("5s") }));
    assert_eq!(
        read(&[("least", "1s"), ("most", "2s")]),
        Ok(When::Between { least: s("1s"), most: s("2s") })
    );
    assert_eq!(
        wrong::<When>(&[("every", "5s"), ("most", "2s")]),
        ["most: does not go together with `every`"]
    );
    assert_eq!(
        wrong::<When>(&[("most", "2s")]),
        ["least: is required: duration, such as `5m` or `1h30m`"]
    );
    assert!(wrong::<When>(&[("every", "soon")])[0].starts_with("every: needs a number"));
    assert_eq!(
        wrong::<Outer<Option<When>>>(&[("name", "x"), ("most", "2s")]),
        ["least: is required: duration, such as `5m` or `1h30m`"]
    );
}

/// A number that its type has rules for.
#[derive(Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(try_from = "u32")]
struct Even(u32);

impl TryFrom<u32> for Even {
    type Error = String;

    fn try_from(n: u32) -> Result<Self, String> {
        if n.is_multiple_of(2) { Ok(Self(n)) } else { Err("must be even".to_owned()) }
    }
}

#[test]
fn what_a_type_refuses_may_be_another_alternative() {
    #[derive(Debug, PartialEq, Deserialize, JsonSchema)]
    #[serde(untagged)]
    enum EvenOrText {
        Even(Even),
        Text(String),
    }
    #[derive(Debug, PartialEq, Deserialize, JsonSchema)]
    #[serde(untagged)]
    enum EvenOrWord {
        Even(Even),
        Word(Word),
    }
    assert_eq!(one::<EvenOrText>("4"), EvenOrText::Even(Even(4)));
    assert_eq!(one::<EvenOrText>("3"), EvenOrText::Text("3".to_owned()));
    assert_eq!(refused::<EvenOrWord>("3"), "must be even");
    assert_eq!(wrong::<Outer<One<Even>>>(&[("name", "x"), ("it", "3")]), ["it: must be even"]);
    let optional = wrong::<Outer<Option<One<Even>>>>(&[("name", "x"), ("it", "3")]);
    assert_eq!(optional, ["it: must be even"]);
}

#[test]
fn a_variant_that_hides_another_loses_nothing_in_silence() {
    #[derive(Debug, Deserialize, JsonSchema)]
    #[serde(untagged)]
    #[expect(dead_code)]
    enum Hidden {
        Small { a: u8 },
        Large { a: u8, b: u8 },
    }
    assert!(read::<Hidden>(&[("a", "1")]).is_ok());
    assert_eq!(
        wrong::<Hidden>(&[("a", "1"), ("b", "2")]),
        ["b: does not go together with the other settings"]
    );
}

#[test]
fn flattened_and_adjacently_tagged_enums_are_read() {
    #[derive(Debug, PartialEq, Deserialize, JsonSchema)]
    #[serde(rename_all = "kebab-case")]
    enum External {
        Retries(u8),
        UserName(String),
        Pair(u8, String),
        Fast,
    }
    #[derive(Debug, PartialEq, Deserialize, JsonSchema)]
    #[serde(tag = "kind", content = "value", rename_all = "lowercase")]
    enum Adjacent {
        Number(u8),
        Text(String),
        List(Vec<u16>),
        None,
    }
    type Flat<T> = Outer<T>;
    let flat = |key: &str, value: &str| read::<Flat<External>>(&[("name", "n"), (key, value)]);
    let is = |inner: External| Ok(Outer { name: "n".to_owned(), inner });
    assert_eq!(flat("Retries", "5"), is(External::Retries(5)));
    assert_eq!(flat("user-name", "5"), is(External::UserName("5".to_owned())));
    assert_eq!(flat("pair", "5, 6"), is(External::Pair(5, "6".to_owned())));
    assert_eq!(flat("fast", ""), is(External::Fast));
    assert_eq!(
        wrong::<Flat<External>>(&[("name", "n"), ("retries", "5"), ("user-name", "x")]),
        ["user-name: does not go together with `retries`"]
    );
    for (kind, value, expected) in [
        ("number", "5", Adjacent::Number(5)),
        ("TEXT", "5", Adjacent::Text("5".to_owned())),
        ("list", "1,2", Adjacent::List(vec![1, 2])),
        ("list", "7", Adjacent::List(vec![7])),
    ] {
        let pairs = [("name", "n"), ("kind", kind), ("value", value)];
        assert_eq!(read::<Adjacent>(&pairs[1..]), Ok(expected), "{kind} {value}");
        assert!(read::<Flat<Adjacent>>(&pairs).is_ok(), "{kind} {value}");
    }
    assert_eq!(read::<Adjacent>(&[("kind", "none")]), Ok(Adjacent::None));
    let rust = wrong::<Adjacent>(&[("kind", "number"), ("value", "x")]);
    assert_eq!(rust, ["value: must be a whole number from 0 to 255"]);
}

#[test]
fn thousands_of_settings_with_alternatives_are_read_in_time() {
    #[derive(Debug, Deserialize, JsonSchema)]
    struct Open {
        #[serde(flatten)]
        alert: Option<Alert>,
        #[serde(flatten)]
        rest: BTreeMap<String, Scalar>,
    }
    let pairs = || (0..10_000).map(|n| (format!("k{n}"), n.to_string()));
    let with = |more: &[(&str, &str)]| {
        let more = more.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned()));
        decode::<Open>(&Settings::new(pairs().chain(more)), &fields::<Open>())
    };
    let open = with(&[("channel", "ops"), ("threshold", "5")]).unwrap();
    assert_eq!((open.rest.len(), open.alert.is_some()), (10_000, true));
    assert_eq!(open.rest["k7"], Scalar::Whole(7));
    let problems = with(&[("channel", "ops")]).unwrap_err();
    assert_eq!(problems[0].key.as_deref(), Some("threshold"), "{problems:?}");
}

#[derive(Debug, PartialEq, Deserialize, JsonSchema)]
struct Group {
    every: u32,
    #[serde(flatten)]
    middle: Option<Middle>,
}

#[derive(Debug, PartialEq, Deserialize, JsonSchema)]
struct Middle {
    channel: String,
    #[serde(flatten)]
    inner: Option<Inner>,
}

#[derive(Debug, PartialEq, Deserialize, JsonSchema)]
struct Inner {
    user: String,
    retries: u8,
}

#[test]
fn an_optional_group_in_another_one_is_read_with_it_and_never_lost() {
    assert_eq!(read(&[("every", "5")]), Ok(Group { every: 5, middle: None }));
    let inner = Some(Inner { user: "a".to_owned(), retries: 3 });
    let middle = Some(Middle { channel: "ops".to_owned(), inner });
    let all = [("every", "5"), ("channel", "ops"), ("user", "a"), ("retries", "3")];
    assert_eq!(read(&all), Ok(Group { every: 5, middle }));
    // `Middle` without `inner`, or `None`, because `inner` might not be optional? Serde does not say.
    assert_eq!(wrong::<Group>(&all[..2]), ["user: is required: text"]);
    assert_eq!(wrong::<Group>(&all[..3]), ["retries: is required: whole number from 0 to 255"]);
    let without = wrong::<Group>(&[all[0], all[2], all[3]]);
    assert_eq!(without, ["retries", "user"].map(|it| format!("{it}: {TOGETHER}")));
}

const TOGETHER: &str = "does not go together with the other settings";

#[test]
fn a_wrong_item_of_a_list_is_named_in_an_alternative_too() {
    #[derive(Debug, Deserialize, JsonSchema)]
    #[serde(untagged)]
    #[expect(dead_code)]
    enum Schedule {
        At { at: Vec<u8> },
        Limited { lim: Vec<Limit> },
    }
    for pair in [("at", "1,2"), ("at", "7"), ("lim", "1,all")] {
        assert!(read::<Schedule>(&[pair]).is_ok(), "{pair:?}");
    }
    let whole = "must be a whole number from 0 to 255";
    let limit = "must be a whole number, at least 0 or one of `all`, `MOST`";
    for (key, value, refusal) in [
        ("at", "300", format!("at: value 1 of the list: {whole}")),
        ("at", "1,hunter2", format!("at: value 2 of the list: {whole}")),
        ("lim", "1,all,hunter2", format!("lim: value 3 of the list: {limit}")),
    ] {
        assert_eq!(wrong::<Schedule>(&[(key, value)]), [refusal.as_str()]);
        assert_eq!(wrong::<Outer<Schedule>>(&[("name", "x"), (key, value)]), [refusal]);
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[expect(dead_code)]
enum AOrB {
    A { a: u8, note: Option<String> },
    B { b: u8, note: Option<String> },
}

#[test]
fn what_every_alternative_requires_is_named_if_none_is_given() {
    let a_or_b = "`a` or `b` is required";
    assert_eq!(wrong::<AOrB>(&[]), [a_or_b]);
    assert_eq!(wrong::<AOrB>(&[("note", "x")]), [a_or_b]);
    assert_eq!(wrong::<Outer<AOrB>>(&[]), ["name: is required: text", a_or_b]);
    assert_eq!(wrong::<Outer<AOrB>>(&[("name", "x")]), [a_or_b]);
    assert_eq!(wrong::<When>(&[]), ["one of these is required: `every`; `least` and `most`"]);
    // The setting that decides is all that is required until it is given.
    assert!(wrong::<Mode>(&[])[0].starts_with("mode: is required"));
    assert_eq!(wrong::<Mode>(&[]).len(), 1);
    assert_eq!(wrong::<Outer<Option<When>>>(&[]), ["name: is required: text"]);
}

#[test]
fn a_text_that_is_none_of_the_alternatives_is_refused_with_all_of_them() {
    #[derive(Debug, Deserialize, JsonSchema)]
    #[serde(untagged)]
    #[expect(dead_code)]
    enum IpOrPort {
        Ip(IpAddr),
        Port(u16),
    }
    type Flat = Outer2<One<IpOrPort>>;
    #[derive(Debug, Deserialize, JsonSchema)]
    #[serde(try_from = "One<IpOrPort>")]
    struct Picky;
    impl TryFrom<One<IpOrPort>> for Picky {
        type Error = &'static str;

        fn try_from(_: One<IpOrPort>) -> Result<Self, Self::Error> {
            Err("too picky")
        }
    }
    for text in ["::1", "127.0.0.1", "80"] {
        one::<IpOrPort>(text);
    }
    let refusal = "must be an IP address or whole number from 0 to 65535";
    assert_eq!(refused::<IpOrPort>("hunter2"), refusal);
    assert_eq!(refused::<IpOrPort>("65536"), refusal);
    let flat = wrong::<Outer<One<IpOrPort>>>(&[("name", "x"), ("it", "hunter2")]);
    assert_eq!(flat, [format!("it: {refusal}")]);
    let optional = wrong::<Outer<Option<One<IpOrPort>>>>(&[("name", "x"), ("it", "hunter2")]);
    assert_eq!(optional, [format!("it: {refusal}")]);
    let answer = |text| decode_one::<Flat>("it", text, &fields::<Flat>());
    assert_eq!((answer("::1"), answer("hunter2")), (Ok(()), Err(refusal.to_owned())));
    // An author's own words are about something else.
    let picky = wrong::<Outer<Picky>>(&[("name", "x"), ("it", "::1")]);
    assert!(picky.len() == 1 && picky[0].ends_with("too picky"), "{picky:?}");
    let list = refused::<Vec<IpOrPort>>("80, hunter2");
    assert_eq!(list, format!("value 2 of the list: {refusal}"));
}

#[test]
fn a_wrong_name_in_a_second_optional_group_is_refused_as_that() {
    #[derive(Debug, Deserialize, JsonSchema)]
    #[serde(tag = "how", rename_all = "lowercase")]
    #[expect(dead_code)]
    enum How {
        X { size: u8 },
        Y { size: u8 },
    }
    type Tagged = TwoGroups<Option<Mode>, Option<How>>;
    type Both = Outer<TwoGroups<Option<Alert>, Option<How>>>;
    #[derive(Debug, Deserialize, JsonSchema)]
    struct TwoGroups<A, B> {
        #[serde(flatten)]
        #[expect(dead_code)]
        a: A,
        #[serde(flatten)]
        #[expect(dead_code)]
        b: B,
    }
    let how = ["how: must be one of `x`, `y`"];
    assert_eq!(wrong::<Both>(&[("name", "n"), ("how", "zzz")]), how);
    assert_eq!(wrong::<Both>(&[("name", "n"), ("how", "zzz"), ("size", "1")]), how);
    assert_eq!(wrong::<Tagged>(&[("how", "zzz")]), how);
    let mode = [("mode", "off"), ("how", "zzz")];
    assert_eq!(wrong::<Tagged>(&mode), how);
    assert!(wrong::<Tagged>(&[("how", "x")])[0].starts_with("size: is required"));
}

#[test]
fn every_documented_choice_is_accepted_with_a_catch_all() {
    #[derive(Debug, PartialEq, Deserialize, JsonSchema)]
    #[serde(rename_all = "lowercase")]
    enum Open {
        A,
        #[serde(other)]
        Other,
    }
    #[derive(Debug, PartialEq, Deserialize, JsonSchema)]
    #[serde(tag = "kind", rename_all = "lowercase")]
    enum Tagged {
        A {
            size: u8,
        },
        #[serde(other)]
        Other,
    }
    #[derive(Debug, PartialEq, Deserialize, JsonSchema)]
    #[serde(tag = "kind", content = "value", rename_all = "lowercase")]
    enum Adjacent {
        A(u8),
        #[serde(other)]
        Other,
    }
    #[derive(Debug, PartialEq, Deserialize, JsonSchema)]
    #[serde(untagged)]
    enum NumberOrOpen {
        Number(u8),
        Open(Open),
    }
    assert_eq!(fields::<One<Open>>()[0].kind, "one of `a`, `other`");
    assert_eq!(fields::<Tagged>()[0].kind, "one of `a`, `other`");
    for text in ["other", "OTHER", "hunter2"] {
        assert_eq!(one::<Open>(text), Open::Other);
        assert_eq!(one::<NumberOrOpen>(text), NumberOrOpen::Open(Open::Other));
        assert_eq!(one::<Vec<Open>>(text), [Open::Other]);
        assert_eq!(read(&[("kind", text)]), Ok(Tagged::Other));
        assert_eq!(read(&[("kind", text)]), Ok(Adjacent::Other));
        let flat: Outer<Option<Tagged>> = read(&[("name", "x"), ("kind", text)]).unwrap();
        assert_eq!(flat.inner, Some(Tagged::Other));
        assert_eq!(decode_one::<Tagged>("kind", text, &fields::<Tagged>()), Ok(()));
    }
}
