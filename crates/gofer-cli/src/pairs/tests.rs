use super::*;

const FORM: &str = "--set KEY=VALUE";

#[test]
fn an_argument_is_a_key_and_a_value() {
    let pair = |argument| pair(argument, FORM).map_err(|it| format!("{it:?}"));
    assert_eq!(pair("a=b=c").unwrap(), ("a".to_owned(), "b=c".to_owned()));
    assert_eq!(pair("a=").unwrap(), ("a".to_owned(), String::new()));
    for argument in ["hunter2", "=hunter2"] {
        let refused = pair(argument).unwrap_err();
        assert!(refused.contains(FORM) && !refused.contains("hunter2"), "{refused}");
    }
}

#[test]
fn a_key_is_given_once() {
    let unique = |keys: &[&str], is_same: fn(&str, &str) -> bool| {
        let arguments: Vec<_> = keys.iter().map(|key| format!("{key}=hunter2")).collect();
        unique(&arguments, FORM, is_same).map_err(|it| format!("{it:?}"))
    };
    let exact: fn(&str, &str) -> bool = |a, b| a == b;
    assert_eq!(unique(&["A", "a"], exact).unwrap().len(), 2);
    assert_eq!(unique(&["a", "b"], str::eq_ignore_ascii_case).unwrap().len(), 2);
    for (refused, why) in [
        (unique(&["a", "a"], exact), "`a` is given twice; give it once"),
        (unique(&["a", "a"], str::eq_ignore_ascii_case), "`a` is given twice; give it once"),
        (
            unique(&["A", "a"], str::eq_ignore_ascii_case),
            "`a` is given twice (keys are case-insensitive); give it once",
        ),
    ] {
        let refused = refused.unwrap_err();
        assert!(refused.contains(why) && !refused.contains("hunter2"), "{refused}");
    }
}
