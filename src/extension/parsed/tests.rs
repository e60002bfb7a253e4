use std::collections::HashSet;
use std::fmt::Debug;
use std::net::Ipv4Addr;

use http::Uri;
use schemars::JsonSchema;

use super::*;
use crate::extension::Settings;
use crate::extension::declared::sealed::SealedDeclared;
use crate::extension::describe::markdown;

fn read<T: SealedDeclared>(pairs: &[(&str, &str)]) -> Result<T, Vec<String>> {
    let settings = Settings::new(pairs.iter().copied());
    T::decode(&settings, &T::fields()).map_err(|problems| {
        let text = |key: Option<String>, message| format!("{}: {message}", key.unwrap_or_default());
        problems.into_iter().map(|problem| text(problem.key, problem.message)).collect()
    })
}

#[derive(Debug, Deserialize, JsonSchema)]
struct One<T> {
    it: T,
}

fn one<T>(text: &str) -> T
where
    One<T>: SealedDeclared,
{
    read::<One<T>>(&[("it", text)]).unwrap().it
}

fn refused<T>(text: &str) -> String
where
    One<T>: SealedDeclared + Debug,
{
    read::<One<T>>(&[("it", text)]).unwrap_err().concat()
}

/// A number that keeps how it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
struct Digits {
    number: u32,
    length: usize,
}

impl FromStr for Digits {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = text.parse().map_err(|_| "must be digits, such as `007`")?;
        Ok(Self { number, length: text.len() })
    }
}

impl Display for Digits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:0width$}", self.number, width = self.length)
    }
}

const SEVEN: Digits = Digits { number: 7, length: 3 };
const FIVE: Digits = Digits { number: 5, length: 1 };

#[test]
fn a_type_gets_its_text_and_what_it_says_of_another_is_passed_on() {
    assert_eq!(one::<Parsed<Digits>>("007").into_inner(), SEVEN);
    assert_eq!(*one::<Parsed<Digits>>("5"), FIVE);
    assert_eq!(*one::<Parsed<Ipv4Addr>>("127.0.0.1"), Ipv4Addr::LOCALHOST);
    assert!(one::<Parsed<Ipv4Addr>>("127.0.0.1").is_loopback());
    assert_eq!(one::<Parsed<Uri>>("https://h/x").path(), "/x");
    assert_eq!(one::<Parsed<String>>(" as it is ").as_str(), " as it is ");
    assert_eq!(refused::<Parsed<Digits>>("x"), "it: must be digits, such as `007`");
    assert_eq!(refused::<Parsed<Digits>>(""), "it: must be digits, such as `007`");
    assert_eq!(refused::<Parsed<Ipv4Addr>>("localhost"), "it: invalid IPv4 address syntax");
    assert_eq!(refused::<Parsed<Uri>>("a b"), "it: invalid uri character");
    assert_eq!(
        One::<Parsed<Digits>>::check("it", "x", &One::<Parsed<Digits>>::fields()),
        Err("must be digits, such as `007`".to_owned())
    );
}

#[test]
fn options_and_lists_of_it_are_read() {
    assert_eq!(one::<Option<Parsed<Digits>>>("007"), Some(Parsed(SEVEN)));
    assert_eq!(read::<One<Option<Parsed<Digits>>>>(&[]).unwrap().it, None);
    assert_eq!(refused::<Option<Parsed<Digits>>>("x"), "it: must be digits, such as `007`");
    assert_eq!(one::<Vec<Parsed<Digits>>>("007, 5"), [Parsed(SEVEN), Parsed(FIVE)]);
    assert_eq!(
        refused::<Vec<Parsed<Digits>>>("007,x"),
        "it: value 2 of the list: must be digits, such as `007`"
    );
}

#[test]
fn flattened_ones_get_their_text() {
    #[derive(Debug, Deserialize, JsonSchema)]
    struct Flat {
        name: String,
        #[serde(flatten)]
        more: One<Parsed<Digits>>,
        #[serde(flatten)]
        group: Option<Group>,
    }
    #[derive(Debug, Deserialize, JsonSchema)]
    struct Group {
        first: Parsed<Digits>,
        second: Option<Parsed<bool>>,
    }
    let all = [("name", "5"), ("it", "5"), ("first", "007"), ("second", "true")];
    let flat: Flat = read(&all).unwrap();
    let group = flat.group.unwrap();
    assert_eq!((flat.name.as_str(), *flat.more.it, *group.first), ("5", FIVE, SEVEN));
    assert_eq!(group.second, Some(Parsed(true)));
    let wrong = read::<Flat>(&[("name", "5"), ("it", "x")]).unwrap_err();
    assert_eq!(wrong, ["it: must be digits, such as `007`"]);
    let wrong = read::<Flat>(&[("name", "5"), ("it", "5"), ("first", "x")]).unwrap_err();
    assert_eq!(wrong, ["first: must be digits, such as `007`"]);
}

#[test]
fn among_alternatives_a_text_is_the_most_specific_that_it_may_be() {
    #[derive(Debug, PartialEq, Deserialize, JsonSchema)]
    #[serde(untagged)]
    enum Place {
        Floor(u8),
        Address(Parsed<Ipv4Addr>),
    }
    #[derive(Debug, PartialEq, Deserialize, JsonSchema)]
    #[serde(untagged)]
    enum Shared {
        Counted { n: u8, total: u8 },
        Written { n: Parsed<Digits> },
    }
    #[derive(Debug, PartialEq, Deserialize, JsonSchema)]
    #[serde(tag = "kind", rename_all = "lowercase")]
    enum Tagged {
        Counted { n: u8 },
        Written { n: Parsed<Digits> },
    }
    assert_eq!(one::<Place>("5"), Place::Floor(5));
    assert_eq!(one::<Place>("10.0.0.1"), Place::Address(Parsed(Ipv4Addr::new(10, 0, 0, 1))));
    assert_eq!(one::<Option<Place>>("5"), Some(Place::Floor(5)));
    assert_eq!(refused::<Place>("x"), "it: invalid IPv4 address syntax");

    assert_eq!(read(&[("n", "5"), ("total", "9")]), Ok(Shared::Counted { n: 5, total: 9 }));
    // No number fits, as `total` is missing.
    assert_eq!(read(&[("n", "5")]), Ok(Shared::Written { n: Parsed(FIVE) }));
    assert_eq!(read(&[("n", "007")]), Ok(Shared::Written { n: Parsed(SEVEN) }));

    assert_eq!(read(&[("kind", "counted"), ("n", "5")]), Ok(Tagged::Counted { n: 5 }));
    let written = |n| Ok(Tagged::Written { n: Parsed(n) });
    assert_eq!(read(&[("kind", "written"), ("n", "5")]), written(FIVE));
    assert_eq!(read(&[("kind", "written"), ("n", "007")]), written(SEVEN));
}

#[test]
fn it_is_documented_as_text_with_its_default() {
    fn seven() -> Parsed<Digits> {
        SEVEN.into()
    }
    #[derive(Deserialize, JsonSchema)]
    #[expect(dead_code, reason = "described, not read")]
    struct Params {
        /// The agent.
        agent: Parsed<Digits>,
        #[serde(default = "seven")]
        spare: Parsed<Digits>,
        maybe: Option<Parsed<Uri>>,
        /// Without a default that can be printed.
        #[serde(default)]
        hidden: Parsed<Unprintable>,
        #[serde(default = "seven")]
        #[schemars(extend("writeOnly" = true))]
        secret: Parsed<Digits>,
    }
    #[derive(Default)]
    struct Unprintable;
    impl FromStr for Unprintable {
        type Err = &'static str;
        fn from_str(_: &str) -> Result<Self, Self::Err> {
            Ok(Self)
        }
    }
    let expected = "## Parameters

- `agent` (text, required): The agent.
- `spare` (text, default `007`)
- `maybe` (text, optional)
- `hidden` (text, optional): Without a default that can be printed.
- `secret` (text, optional, secret)
";
    assert_eq!(markdown("Parameters", &Params::fields()), expected);
}

#[test]
fn it_does_what_its_type_does() {
    let parsed: Parsed<Digits> = "007".parse().unwrap();
    assert_eq!(format!("{parsed} {parsed:?}"), format!("007 {SEVEN:?}"));
    assert_eq!(format!("{:>9}", Parsed(Ipv4Addr::new(1, 1, 1, 1))), "  1.1.1.1");
    assert_eq!("x".parse::<Parsed<Digits>>(), Err("must be digits, such as `007`"));
    assert!(Parsed(FIVE) < Parsed(SEVEN) && Parsed::<Digits>::default().length == 0);
    assert_eq!(HashSet::from([parsed, parsed]).len(), 1);
    let json = serde_json::to_string(&parsed).unwrap();
    assert_eq!(json, "\"007\"");
    assert_eq!(serde_json::from_str::<Parsed<Digits>>(&json).unwrap(), parsed);
}
