use std::collections::BTreeMap;
use std::fmt::Debug;

use schemars::JsonSchema;

use super::*;
use crate::extension::Settings;
use crate::extension::declared::sealed::SealedDeclared;
use crate::extension::describe::{Fields, is_secret_question, markdown, prompt};

/// Reads settings as an extension does.
fn read<T: SealedDeclared>(pairs: &[(&str, &str)]) -> Result<T, Vec<String>> {
    let settings = Settings::new(pairs.iter().copied());
    T::decode(&settings, &T::fields()).map_err(|problems| {
        let text = |key: Option<String>, message| format!("{}: {message}", key.unwrap_or_default());
        problems.into_iter().map(|problem| text(problem.key, problem.message)).collect()
    })
}

fn wrong<T: SealedDeclared + Debug>(pairs: &[(&str, &str)]) -> Vec<String> {
    read::<T>(pairs).unwrap_err()
}

const EMPTY: &str = "must not be empty";

#[test]
fn nothing_of_a_secret_is_printed() {
    let (short, long) = (Secret::from("a"), Secret::from("hunter2".repeat(100)));
    assert_eq!(format!("{short:?} {long:#?} {:?}", long.clone()), "Secret(…) Secret(…) Secret(…)");
    assert_eq!(format!("{:?}", Some(&short)), "Some(Secret(…))");
    assert_eq!(short.expose(), "a");
}

#[test]
fn exactly_the_secret_matches() {
    let secret = Secret::from("hunter2");
    assert!(secret.matches("hunter2"));
    for other in ["", "hunter", "hunter22", "Hunter2", " hunter2", "hunter2\0", "2retnuh"] {
        assert!(!secret.matches(other), "{other}");
    }
    assert!(Secret::from("ß\0").matches("ß\0"));
    assert!(!Secret::from("").matches("") && !Secret::from(String::new()).matches("x"));
}

#[derive(Debug, Deserialize, JsonSchema)]
struct Wrapped(Secret);

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
enum NumberOrSecret {
    Number(u8),
    Secret(Secret),
}

fn fallback() -> Secret {
    "hunter2".into()
}

fn list() -> Vec<Secret> {
    vec![fallback()]
}

#[derive(Debug, Deserialize, JsonSchema)]
struct Config {
    /// The token.
    token: Secret,
    maybe: Option<Secret>,
    /// For a while both are accepted.
    #[serde(default = "list")]
    #[schemars(extend("default" = ["hunter2"]))]
    several: Vec<Secret>,
    #[serde(default)]
    pair: Option<(String, Secret)>,
    wrapped: Option<Wrapped>,
    either: Option<NumberOrSecret>,
    #[serde(default = "fallback")]
    #[schemars(extend("default" = "hunter2"))]
    shown: Secret,
    #[serde(default = "fallback")]
    derived: Secret,
    #[serde(default)]
    plain: String,
}

#[test]
fn a_setting_that_holds_a_secret_is_called_one_wherever_it_is() {
    let fields = Config::fields();
    let text = markdown("Configuration", &fields);
    let expected = "## Configuration

- `token` (text, required, secret): The token.
- `maybe` (text, optional, secret)
- `several` (list of text, separated by commas, optional, secret): For a while both are accepted.
- `pair` (2 values, separated by commas, optional, secret)
- `wrapped` (text, optional, secret)
- `either` (whole number from 0 to 255 or text, optional, secret)
- `shown` (text, optional, secret)
- `derived` (text, optional, secret)
- `plain` (text, default empty)
";
    assert_eq!(text, expected);
    for field in fields.iter() {
        let question = prompt(field);
        assert_eq!(is_secret_question(&question), field.name != "plain", "{question}");
        assert!(!question.contains("hunter2"), "{question}");
    }
}

#[test]
fn a_secret_is_one_without_inlined_schemas_too() {
    let schema = schemars::schema_for!(Config);
    for name in ["token", "maybe", "shown"] {
        assert_eq!(schema.as_value()["properties"][name]["writeOnly"], true, "{name}");
    }
}

#[test]
fn a_setting_is_a_secret_if_it_is_one_in_any_alternative() {
    #[derive(Deserialize, JsonSchema)]
    #[serde(tag = "kind", rename_all = "lowercase")]
    #[expect(dead_code, reason = "described, not read")]
    enum Login {
        Name {
            #[serde(default)]
            with: String,
        },
        Token {
            with: Secret,
        },
        Both {
            with: (String, Secret),
        },
    }
    #[derive(Deserialize, JsonSchema)]
    #[expect(dead_code, reason = "described, not read")]
    struct Flat {
        #[serde(flatten)]
        login: Option<Login>,
    }
    let is_secret = |fields: Fields| {
        let field = fields.named("with").unwrap();
        field.secret && field.default.is_none()
    };
    assert!(is_secret(Login::fields()) && is_secret(Flat::fields()));
}

#[test]
fn a_secret_gets_its_text_and_an_empty_one_is_refused_by_name() {
    let config: Config = read(&[
        ("token", " 007 "),
        ("maybe", "5"),
        ("several", "a, b"),
        ("pair", "a, b"),
        ("wrapped", "w"),
        ("either", "x"),
    ])
    .unwrap();
    assert_eq!(config.token.expose(), " 007 ");
    assert_eq!(config.maybe.unwrap().expose(), "5");
    assert_eq!(config.several.iter().map(Secret::expose).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(config.pair.unwrap().1.expose(), "b");
    assert_eq!(config.wrapped.unwrap().0.expose(), "w");
    assert!(matches!(config.either, Some(NumberOrSecret::Secret(text)) if text.expose() == "x"));
    assert_eq!((config.shown.expose(), config.derived.expose()), ("hunter2", "hunter2"));
    assert_eq!(config.plain, "");
    let config: Config = read(&[("token", "t"), ("either", "5")]).unwrap();
    assert!(matches!(config.either, Some(NumberOrSecret::Number(5))));
    let given = |name| wrong::<Config>(&[("token", "t"), (name, "")]);
    for name in ["maybe", "wrapped", "either", "shown"] {
        assert_eq!(given(name), [format!("{name}: {EMPTY}")]);
    }
    assert_eq!(wrong::<Config>(&[("token", "")]), [format!("token: {EMPTY}")]);
    let list = wrong::<Config>(&[("token", "t"), ("several", "a,,b")]);
    assert_eq!(list, [format!("several: value 2 of the list: {EMPTY}")]);
    assert_eq!(
        Config::check("maybe", "", &Config::fields()),
        Err(EMPTY.to_owned()),
        "in a conversation"
    );
}

#[test]
fn an_empty_secret_is_refused_by_name_in_flattened_parts_and_alternatives() {
    #[derive(Debug, Deserialize, JsonSchema)]
    #[allow(dead_code, reason = "it is read, and nothing else")]
    struct Flat {
        name: String,
        #[serde(flatten)]
        config: Wanted,
    }
    #[derive(Debug, Deserialize, JsonSchema)]
    #[allow(dead_code, reason = "it is read, and nothing else")]
    struct Wanted {
        token: Secret,
    }
    #[derive(Debug, Deserialize, JsonSchema)]
    #[serde(tag = "kind", rename_all = "lowercase")]
    #[allow(dead_code, reason = "it is read, and nothing else")]
    enum Login {
        Open,
        Token { token: Secret },
    }
    #[derive(Debug, Deserialize, JsonSchema)]
    #[allow(dead_code, reason = "it is read, and nothing else")]
    struct Optional {
        #[serde(flatten)]
        config: Option<Wanted>,
    }
    let empty = [format!("token: {EMPTY}")];
    assert_eq!(wrong::<Flat>(&[("name", "x"), ("token", "")]), empty);
    assert_eq!(wrong::<Login>(&[("kind", "token"), ("token", "")]), empty);
    assert_eq!(wrong::<Optional>(&[("token", "")]), empty);
    let flat: Flat = read(&[("name", "x"), ("token", "007")]).unwrap();
    assert_eq!(flat.config.token.expose(), "007");
    let login: Login = read(&[("kind", "token"), ("token", "5")]).unwrap();
    assert!(matches!(login, Login::Token { token } if token.expose() == "5"));
    let optional: Optional = read(&[("token", "true")]).unwrap();
    assert_eq!(optional.config.unwrap().token.expose(), "true");
    let any = read::<BTreeMap<String, Secret>>(&[("x", "1"), ("y", "0x1")]).unwrap();
    assert_eq!((any["x"].expose(), any["y"].expose()), ("1", "0x1"));
}
