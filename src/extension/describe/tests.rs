use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::num::NonZeroU32;

use schemars::{JsonSchema, json_schema};
use serde::{Deserialize, Serialize};

use super::settings_of as fields;
use super::*;
use crate::extension::none::{NoConfig, NoParams};

#[derive(Deserialize, Serialize, Default)]
struct Span(String);

impl JsonSchema for Span {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Span".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        json_schema!({ "type": "string", "format": "go-duration" })
    }
}

#[derive(Deserialize, Serialize, JsonSchema, Default)]
#[serde(rename_all = "lowercase")]
enum Level {
    /// As little as possible.
    #[default]
    Low,
    /// Everything.
    High,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Plain {
    A,
    B,
}

fn none() -> Span {
    Span("0s".to_owned())
}

fn ports() -> Vec<u16> {
    vec![80, 443]
}

#[derive(Deserialize, JsonSchema)]
#[expect(dead_code)]
struct Params {
    /// The time between two runs, such as `5m` or `1h30m`.
    ///
    /// Counted from the first.
    every: Span,
    /// How much later a run may start.
    #[serde(default = "none")]
    jitter: Span,
    /// How much to say.
    #[serde(default)]
    level: Level,
    plain: Option<Plain>,
    choice: Option<Level>,
    #[serde(default = "ports")]
    ports: Vec<u16>,
    spans: Vec<Span>,
    hosts: BTreeSet<IpAddr>,
    pair: (u8, String),
    letter: char,
    factor: Option<f32>,
    #[serde(rename = "at-least")]
    nonzero: NonZeroU32,
    #[schemars(range(min = 1, max = 10))]
    small: u32,
    #[serde(default)]
    quiet: bool,
    #[serde(default)]
    maybe: Option<u64>,
    #[serde(default)]
    label: String,
}

fn kinds(fields: &Fields) -> Vec<(&str, &str)> {
    fields.iter().map(|field| (field.name.as_str(), field.kind.as_str())).collect()
}

#[test]
fn fields_come_in_their_order_and_in_words() {
    assert_eq!(
        kinds(&fields::<Params>()),
        [
            ("every", "duration, such as `5m` or `1h30m`"),
            ("jitter", "duration, such as `5m` or `1h30m`"),
            ("level", "one of `low`, `high`"),
            ("plain", "one of `a`, `b`"),
            ("choice", "one of `low`, `high`"),
            ("ports", "list of whole numbers from 0 to 65535, separated by commas"),
            ("spans", "list of durations, separated by commas, such as `5m` or `1h30m`"),
            ("hosts", "list of IP addresses, separated by commas"),
            ("pair", "2 values, separated by commas"),
            ("letter", "single character"),
            ("factor", "number"),
            ("at-least", "whole number, at least 1"),
            ("small", "whole number from 1 to 10"),
            ("quiet", "true or false"),
            ("maybe", "whole number, at least 0"),
            ("label", "text"),
        ]
    );
}

#[test]
fn an_option_or_a_default_makes_a_field_optional() {
    let fields = fields::<Params>();
    let required: Vec<_> =
        fields.iter().filter(|field| field.required).map(|field| field.name.as_str()).collect();
    assert_eq!(required, ["every", "spans", "hosts", "pair", "letter", "at-least", "small"]);
    let defaults: Vec<_> = fields
        .iter()
        .filter_map(|field| Some((field.name.as_str(), field.default.as_deref()?)))
        .collect();
    assert_eq!(
        defaults,
        [
            ("jitter", "0s"),
            ("level", "low"),
            ("ports", "80, 443"),
            ("quiet", "false"),
            ("label", "")
        ]
    );
}

#[test]
fn documentation_is_a_line_for_each_field() {
    let text = markdown("Parameters", &fields::<Params>());
    let start = "## Parameters

- `every` (duration, required): The time between two runs, such as `5m` or `1h30m`. Counted from the first.
- `jitter` (duration, such as `5m` or `1h30m`, default `0s`): How much later a run may start.
- `level` (one of `low`, `high`, default `low`): How much to say. `low`: As little as possible. `high`: Everything.
- `plain` (one of `a`, `b`, optional)
";
    assert!(text.starts_with(start), "{text}");
    assert!(text.ends_with("- `label` (text, default empty)\n"), "{text}");
}

#[test]
fn no_fields_are_documented_as_none() {
    assert_eq!(markdown("Parameters", &fields::<NoParams>()), "## Parameters\n\nNone.\n");
    assert_eq!(markdown("Configuration", &fields::<NoConfig>()), "## Configuration\n\nNone.\n");
    assert_eq!(fields::<()>(), Fields::default());
}

#[test]
fn a_question_says_what_an_empty_answer_does() {
    let fields = fields::<Params>();
    let question = |name| prompt(fields.named(name).unwrap());
    assert_eq!(
        question("every"),
        "every: The time between two runs, such as `5m` or `1h30m`. Counted from the first. \
         (duration, required)"
    );
    assert_eq!(
        question("jitter"),
        "jitter: How much later a run may start. (duration, such as `5m` or `1h30m`, default 0s; \
         leave empty for the default)"
    );
    assert_eq!(question("factor"), "factor (number, optional)");
    assert_eq!(question("label"), "label (text, default empty)");
}

#[derive(Deserialize, JsonSchema)]
#[expect(dead_code)]
struct Common {
    /// How often to try.
    retries: u8,
}

#[test]
fn flattened_fields_are_fields_and_a_flattened_map_opens_the_rest() {
    #[derive(Deserialize, JsonSchema)]
    #[expect(dead_code)]
    struct Flat {
        first: String,
        #[serde(flatten)]
        common: Common,
    }
    #[derive(Deserialize, JsonSchema)]
    #[expect(dead_code)]
    struct Open {
        first: String,
        #[serde(flatten)]
        rest: BTreeMap<String, bool>,
    }
    let flat = fields::<Flat>();
    assert_eq!(kinds(&flat), [("first", "text"), ("retries", "whole number from 0 to 255")]);
    assert_eq!(flat[1].description, "How often to try.");
    assert!(flat[1].required && !flat.is_open());
    let open = fields::<Open>();
    assert!(open.is_open());
    assert_eq!(open.shape("FIRST").offers("true"), [Offer::Text("true")]);
    assert_eq!(open.shape("other").offers("true"), [Offer::Boolean(true)]);
    assert!(markdown("x", &open).ends_with("- Any other key.\n"));
    assert_eq!(markdown("x", &fields::<BTreeMap<String, String>>()), "## x\n\nAny key.\n");
}

#[test]
fn an_optional_flattened_struct_requires_nothing() {
    #[derive(Deserialize, JsonSchema)]
    #[expect(dead_code)]
    struct Flat {
        #[serde(flatten)]
        common: Option<Common>,
    }
    let flat = fields::<Flat>();
    assert_eq!(kinds(&flat), [("retries", "whole number from 0 to 255")]);
    assert!(!flat[0].required);
}

#[test]
fn alternatives_are_merged_and_require_what_all_of_them_require() {
    #[derive(Deserialize, JsonSchema)]
    #[serde(tag = "kind", rename_all = "lowercase")]
    #[expect(dead_code)]
    enum Tagged {
        Fixed { every: Span, n: u8 },
        Random { most: f64, n: String },
        Off { n: u8 },
    }
    let fields = fields::<Tagged>();
    assert_eq!(
        kinds(&fields),
        [
            ("kind", "one of `fixed`, `random`, `off`"),
            ("every", "duration, such as `5m` or `1h30m`"),
            ("n", "whole number from 0 to 255 or text"),
            ("most", "number"),
        ]
    );
    let required: Vec<_> = fields.iter().map(|field| field.required).collect();
    assert_eq!(required, [true, false, true, false]);
    assert_eq!(fields.shape("n").offers("5"), [Offer::Unsigned(5), Offer::Text("5")]);
    assert_eq!(fields.shape("n").offers("007"), [Offer::Text("007"), Offer::Unsigned(7)]);
}

#[test]
fn a_type_that_contains_itself_ends() {
    #[derive(Deserialize, JsonSchema)]
    #[expect(dead_code)]
    struct Tree {
        name: String,
        parent: Option<Box<Tree>>,
        children: Vec<Tree>,
    }
    #[derive(Deserialize, JsonSchema)]
    #[expect(dead_code)]
    struct Holder {
        tree: Tree,
        forest: Vec<Tree>,
    }
    let nested = "list of nested values, separated by commas";
    assert_eq!(
        kinds(&fields::<Tree>()),
        [("name", "text"), ("parent", "nested value"), ("children", nested)]
    );
    assert_eq!(kinds(&fields::<Holder>()), [("tree", "nested value"), ("forest", nested)]);
}

#[test]
fn a_field_without_a_comment_is_described_by_its_type() {
    /// A place in the queue.
    #[derive(Deserialize, JsonSchema)]
    #[expect(dead_code)]
    struct Rank(u8);
    #[derive(Deserialize, JsonSchema)]
    #[expect(dead_code)]
    struct Holder {
        rank: Rank,
        other: Option<Rank>,
    }
    let fields = fields::<Holder>();
    assert_eq!(fields[0].description, "A place in the queue.");
    assert_eq!(fields[1].description, "A place in the queue.");
}

#[test]
fn a_secret_is_called_one_and_its_default_is_not_shown() {
    #[derive(Deserialize, JsonSchema)]
    #[serde(default)]
    struct Secrets {
        #[schemars(extend("writeOnly" = true))]
        token: String,
        #[schemars(extend("format" = "password"))]
        password: Option<String>,
        plain: String,
    }
    impl Default for Secrets {
        fn default() -> Self {
            let hunter2 = || "hunter2".to_owned();
            Self { token: hunter2(), password: Some(hunter2()), plain: "seen".to_owned() }
        }
    }
    let fields = fields::<Secrets>();
    let expected = "## Parameters

- `token` (text, optional, secret)
- `password` (text, optional, secret)
- `plain` (text, default `seen`)
";
    assert_eq!(markdown("Parameters", &fields), expected);
    assert_eq!(prompt(&fields[0]), "token (text, optional, secret)");
    assert!(is_secret_question(&prompt(&fields[1])) && !is_secret_question(&prompt(&fields[2])));
}

#[test]
fn long_choices_are_cut() {
    let names: Vec<String> = (0..30).map(|n| n.to_string()).collect();
    let text = kind::one_of(names.iter().map(String::as_str));
    assert!(text.starts_with("one of `0`, `1`") && text.ends_with("`19`, and 10 more"), "{text}");
}

#[test]
fn the_order_of_fields_is_found_without_running_an_authors_code() {
    #[derive(Deserialize, JsonSchema)]
    #[expect(dead_code)]
    struct Raw {
        second: Option<String>,
        first: Option<String>,
    }
    #[derive(Deserialize, JsonSchema)]
    #[serde(from = "Raw")]
    struct Converted;
    impl From<Raw> for Converted {
        fn from(_: Raw) -> Self {
            panic!("nothing has been read")
        }
    }
    let names: Vec<_> = fields::<Converted>().iter().map(|field| field.name.clone()).collect();
    assert_eq!(names, ["second", "first"]);
}

#[cfg(feature = "cron")]
#[test]
fn a_schedule_says_how_it_is_written() {
    use crate::{Cron, TimeZone};

    #[derive(Deserialize, JsonSchema)]
    #[expect(dead_code)]
    struct Params {
        /// When to run.
        at: Cron,
        or: Option<Cron>,
        /// A zone.
        #[serde(default)]
        zone: TimeZone,
        zones: Vec<TimeZone>,
    }
    let fields = fields::<Params>();
    assert_eq!(
        kinds(&fields),
        [
            ("at", "cron expression, such as `30 2 * * * *`"),
            ("or", "cron expression, such as `30 2 * * * *`"),
            ("zone", "time zone, such as `Europe/Berlin`"),
            ("zones", "list of time zones, separated by commas, such as `Europe/Berlin`"),
        ]
    );
    let text = markdown("Parameters", &fields);
    let zone = "- `zone` (time zone, such as `Europe/Berlin`, default `UTC`): A zone.\n";
    assert!(text.contains(zone), "{text}");
    assert!(text.contains(": Six fields, all of which must match: minute, hour"), "{text}");
}
