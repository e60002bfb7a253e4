//! Types made of parts that are flattened, tagged, untagged and optional in many combinations, with
//! generated settings: what the schema accepts is accepted and arrives as it was given, what is
//! accepted lost nothing, and a refusal holds neither a value nor a word of Rust.

use serde::Serialize;
use serde_json::Value as Json;

use super::*;

/// Every type here has these properties.
trait Sample: de::DeserializeOwned + Serialize + JsonSchema + Debug {}
impl<T: de::DeserializeOwned + Serialize + JsonSchema + Debug> Sample for T {}

macro_rules! leaves {
    ($($name:ident { $($field:ident: $type:ty),* })*) => {$(
        #[derive(Debug, Deserialize, Serialize, JsonSchema)]
        struct $name { $($field: $type),* }
    )*};
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
enum Size {
    Small,
    #[serde(rename = "extra large")]
    ExtraLarge,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
enum NumberOrSize {
    Number(u16),
    Size(Size),
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
enum TruthOrText {
    Truth(bool),
    Text(String),
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
struct Wrapped(i64);

leaves! {
    Texts { text: String, letter: char }
    Numbers { small: i8, wide: u64, signed: i64 }
    Floats { single: f32, double: f64 }
    Sizes { size: Size, limit: NumberOrSize }
    Lists { list: Vec<u32>, limits: Vec<NumberOrSize> }
    Tuples { pair: (u8, String), three: [bool; 3] }
    Truths { truth: bool, any: TruthOrText }
    Wrappers { wrapped: Wrapped, nested: Option<Option<u8>>, maybe: Option<String> }
    Options { sure: bool, choice: Option<Size>, choices: Option<Vec<Size>>, either: Option<NumberOrSize> }
}

// The same settings, of other types.
leaves! {
    OtherNumbers { small: String, wide: Vec<u8>, signed: f64 }
    OtherSizes { size: u8, limit: String }
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
struct Flat<A, B> {
    #[serde(flatten)]
    a: A,
    #[serde(flatten)]
    b: B,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
struct Maybe<A> {
    first: u32,
    #[serde(flatten)]
    a: Option<A>,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
enum Either<A, B> {
    A(A),
    B(B),
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Tagged<A, B> {
    A(A),
    B(B),
    None,
}

/// A text of the given schema, and one that is nearly of it.
fn text(schema: &Json, random: &mut Random) -> String {
    let pick = |all: &[&str], random: &mut Random| all[random.below(all.len())].to_owned();
    if let Some(only) = schema.get("const").and_then(Json::as_str) {
        return only.to_owned();
    }
    if let Some(all) = schema.get("enum").and_then(Json::as_array) {
        let all: Vec<_> = all.iter().filter_map(Json::as_str).collect();
        let one = all[random.below(all.len())];
        return if random.below(2) == 0 { one.to_owned() } else { one.to_ascii_lowercase() };
    }
    for key in ["anyOf", "oneOf"] {
        if let Some(all) = schema.get(key).and_then(Json::as_array) {
            let all: Vec<_> =
                all.iter().filter(|it| it.get("type") != Some(&"null".into())).collect();
            return text(all[random.below(all.len())], random);
        }
    }
    let kind = match &schema["type"] {
        Json::Array(all) => all[0].as_str().unwrap(),
        kind => kind.as_str().unwrap(),
    };
    match (kind, schema["format"].as_str()) {
        ("integer", Some("int8")) => pick(&["-128", "127", "0", "007", "+5"], random),
        ("integer", Some("int64")) => {
            pick(&["-9223372036854775808", "9223372036854775807"], random)
        }
        ("integer", Some("uint64")) => pick(&["18446744073709551615", "0", "1"], random),
        ("integer", Some("uint16")) => pick(&["65535", "1", "0"], random),
        ("integer", _) => pick(&["255", "1", "0", "42"], random),
        ("number", _) => pick(&["0.5", "-2", "1e3", "1e-3", "3"], random),
        ("boolean", _) => pick(&["true", "false", "T", "0"], random),
        ("array", _) => {
            let tuple = schema.get("prefixItems").and_then(Json::as_array);
            let count = || schema["minItems"].as_u64().map(|count| usize::try_from(count).unwrap());
            let items: Vec<_> = if let Some(items) = tuple {
                items.iter().map(|it| text(it, random)).collect()
            } else {
                let count = count().unwrap_or_else(|| random.below(4));
                (0..count).map(|_| text(&schema["items"], random)).collect()
            };
            items.join(", ")
        }
        ("string", _) if schema.get("maxLength").is_some() => pick(&["x", "5", "é"], random),
        _ => pick(&["007", "1e5", "true", "null", "words", "5", "5.0", " x", "hunter2"], random),
    }
}

/// Settings that `schema` accepts; of optional ones all or some.
fn settings(schema: &Json, full: bool, random: &mut Random, all: &mut BTreeMap<String, String>) {
    let required = schema.get("required").and_then(Json::as_array);
    for (name, property) in schema.get("properties").and_then(Json::as_object).into_iter().flatten()
    {
        let is_required = required.is_some_and(|all| all.iter().any(|it| it == name));
        if is_required || full || random.below(3) > 0 {
            all.insert(name.clone(), text(property, random));
        }
    }
    for part in schema.get("allOf").and_then(Json::as_array).into_iter().flatten() {
        settings(part, full, random, all);
    }
    for key in ["anyOf", "oneOf"] {
        if let Some(parts) = schema.get(key).and_then(Json::as_array) {
            settings(&parts[random.below(parts.len())], full, random, all);
        }
    }
}

/// Whether a value that was read is what was given.
#[expect(
    clippy::cast_possible_truncation,
    reason = "an `f32` is shown with more digits as an `f64`"
)]
fn is_same(given: &str, value: &Json) -> bool {
    let number = |text: &str| text.parse::<f64>().ok();
    match value {
        Json::String(text) => text == given || text.eq_ignore_ascii_case(given),
        Json::Number(it) => {
            it.to_string() == given.trim_start_matches(['+', '0'])
                || number(given) == it.as_f64()
                || number(given).map(|it| it as f32) == it.as_f64().map(|it| it as f32)
        }
        Json::Bool(it) => (if *it { ["true", "T"] } else { ["false", "0"] }).contains(&given),
        Json::Array(items) => {
            let texts: Vec<_> =
                given.split(',').map(str::trim).filter(|it| !it.is_empty()).collect();
            texts.len() == items.len()
                && texts.iter().zip(items).all(|(text, it)| is_same(text, it))
        }
        Json::Null | Json::Object(_) => false,
    }
}

fn refusals_are_plain(problems: &[Problem], given: &BTreeMap<String, String>) {
    for Problem { key, message, .. } in problems {
        for word in
            ["variant", "struct", "untagged", "enum", "u8", "invalid type", "Option", "tuple"]
        {
            assert!(!message.contains(word), "{word} in {message}");
        }
        assert!(!message.contains("hunter2"), "{message}");
        let key = key.as_deref().unwrap_or_default();
        assert!(!given.contains_key(key) || !message.is_empty());
    }
}

/// What was accepted and refused, so that a test of nothing fails.
#[derive(Debug, Default)]
struct Seen {
    accepted: usize,
    refused: usize,
}

fn check<T: Sample>(rounds: usize, seen: &mut Seen) {
    let name = std::any::type_name::<T>();
    let schema = describe::schema::<T>().to_value();
    let declared = fields::<T>();
    let mut random = Random(name.bytes().map(u64::from).sum());
    for _ in 0..rounds {
        let mut given = BTreeMap::new();
        let full = random.below(2) == 0;
        settings(&schema, full, &mut random, &mut given);
        // The schema of a flattened `Option` does not say what its group requires.
        let is_half = !full && name.contains("Maybe<");
        let damage = random.below(3);
        if damage == 0 && !given.is_empty() {
            let key = given.keys().nth(random.below(given.len())).unwrap().clone();
            match random.below(3) {
                0 => drop(given.remove(&key)),
                1 => drop(given.insert(key, "hunter2".to_owned())),
                _ => {
                    let other = &declared[random.below(declared.len())].name;
                    given.insert(other.clone(), "5".to_owned());
                }
            }
        }
        let cased = given.iter().map(|(key, text)| (key.to_ascii_uppercase(), text));
        match decode::<T>(&Settings::new(cased), &declared) {
            Ok(value) => {
                seen.accepted += 1;
                let read = serde_json::to_value(&value).unwrap();
                for (key, text) in &given {
                    let is_read = read.get(key).is_some_and(|it| is_same(text, it));
                    assert!(is_read, "{name}: {key}={text} became {read} of {given:?}");
                }
            }
            Err(problems) => {
                seen.refused += 1;
                refusals_are_plain(&problems, &given);
                assert!(!problems.is_empty());
                assert!(damage == 0 || is_half, "{name}: {given:?} is refused: {problems:?}");
            }
        }
    }
}

#[test]
fn what_the_documentation_accepts_arrives_and_nothing_is_lost() {
    let mut seen = Seen::default();
    macro_rules! check {
        ($($type:ty),* $(,)?) => {$( check::<$type>(50, &mut seen); )*};
    }
    macro_rules! each {
        ($($leaf:ident),*) => {$( check!(
            $leaf,
            Flat<$leaf, ()>,
            Maybe<$leaf>,
            Tagged<$leaf, OtherNumbers>,
            Flat<Tagged<OtherSizes, $leaf>, One<u8>>,
            Maybe<Tagged<$leaf, OtherSizes>>,
            Either<$leaf, One<String>>,
            Flat<Either<One<Vec<NumberOrSize>>, $leaf>, ()>,
            Maybe<Flat<$leaf, One<NumberOrSize>>>,
            Flat<Maybe<$leaf>, Tagged<One<TruthOrText>, One<f32>>>,
            Tagged<Flat<$leaf, ()>, Maybe<$leaf>>,
            Either<Flat<$leaf, One<u8>>, Tagged<One<bool>, One<Size>>>,
        ); )*};
    }
    each!(Texts, Numbers, Floats, Sizes, Lists, Tuples, Truths, Wrappers, Options);
    check!(
        Tagged<Numbers, OtherNumbers>,
        Tagged<OtherSizes, Sizes>,
        Maybe<Tagged<OtherNumbers, Numbers>>,
        Either<Numbers, Flat<OtherSizes, Texts>>,
    );
    assert!(seen.accepted > 2_500 && seen.refused > 300, "{seen:?}");
}
