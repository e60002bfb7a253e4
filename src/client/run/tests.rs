use super::*;

const NOON: i64 = 1_700_000_000_000_000_000;

fn tick(at: i64, again: bool) -> Run {
    let occurrence = if again { Occurrence::Again } else { Occurrence::First };
    let scheduled = Scheduled { at, occurrence, max_lateness: u32::MAX };
    Run::scheduled("of a test".into(), scheduled)
}

fn keyed(run: Run) -> (Key, HashMap<String, String>) {
    let keyed = run.keyed().unwrap();
    let variables = keyed.variables().map(|(name, value)| (name.to_owned(), value.to_owned()));
    let variables = variables.collect();
    (keyed.key, variables)
}

#[test]
fn a_tick_has_a_key_from_its_time_which_is_the_same_in_every_process() {
    let (key, variables) = keyed(tick(NOON, false));
    assert_eq!(key.text, "gofer-sdk:tick:2023-11-14T22:13:20Z");
    assert_eq!(variables[RUN_KEY], key.text);
    assert_eq!(variables[SCHEDULED_AT], "2023-11-14T22:13:20Z");
    let (_, fine) = keyed(tick(NOON + 7, false));
    assert_eq!(fine[SCHEDULED_AT], "2023-11-14T22:13:20.000000007Z");
}

#[test]
fn a_time_that_has_been_used_gets_a_key_of_its_own() {
    let (first, variables) = keyed(tick(NOON, true));
    let (second, _) = keyed(tick(NOON, true));
    assert_ne!(first.text, second.text);
    assert_eq!(variables[SCHEDULED_AT], "2023-11-14T22:13:20Z");
}

#[test]
fn each_call_has_a_key_of_its_own() {
    let (first, variables) = keyed(Run::because("of a test"));
    let (second, _) = keyed(Run::because("of a test"));
    assert_ne!(first.text, second.text);
    assert!(!first.is_authors && !variables.contains_key(SCHEDULED_AT));
}

#[test]
fn an_authors_key_is_taken_as_it_is() {
    let (key, variables) = keyed(tick(NOON, false).key("delivery 7"));
    assert!(key.is_authors);
    assert_eq!(variables[RUN_KEY], "delivery 7");
    assert!(variables.contains_key(SCHEDULED_AT));
}

#[test]
fn keys_and_variables_that_cannot_be_are_refused_by_name_and_not_shown() {
    let long = "x".repeat(257);
    for key in ["", &long, "gofer-sdk:tick:2023", "secret\n"] {
        let error = Run::because("of a test").key(key).keyed().err().unwrap().to_string();
        assert!(error.starts_with("parameter `key`: must "), "{error}");
        assert!(!error.contains("secret"), "{error}");
    }
    for name in [RUN_KEY, SCHEDULED_AT] {
        let run = Run::because("of a test").variable(name, "secret");
        let error = run.clone().keyed().err().unwrap().to_string();
        assert!(error.contains(name) && !error.contains("secret"), "{error}");
        // Of another program it is a variable like any other.
        assert_eq!(run.unkeyed().unwrap().1[name], "secret");
    }
    let error = Run::because("of a test").key("k").unkeyed().unwrap_err();
    assert!(error.to_string().contains("only runs that an extension starts"), "{error}");
}

#[test]
fn times_are_converted_without_loss_and_bounded() {
    for nanos in [0, 1, -1, 1_700_000_000_123_456_789, -1_000_000_000_000_000_001, i64::MAX] {
        assert_eq!(unix_nanos(system_time(nanos)), nanos);
    }
    let beyond = Duration::from_secs(1 << 40);
    assert_eq!(unix_nanos(UNIX_EPOCH + beyond), i64::MAX);
    assert_eq!(unix_nanos(UNIX_EPOCH - beyond), i64::MIN);
}
