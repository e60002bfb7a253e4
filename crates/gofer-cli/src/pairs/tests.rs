use super::*;

const FORM: &str = "-c, --set KEY=VALUE";

#[test]
fn an_argument_is_a_key_and_a_value() {
    let read = |arguments: &[&str]| {
        let arguments: Vec<_> = arguments.iter().map(|&it| it.to_owned()).collect();
        let read: Result<Vec<_>, _> = pairs(&arguments, FORM)
            .map(|pair| pair.map(|(key, value)| format!("{key} {value}")))
            .collect();
        read.map_err(|it| it.message().to_owned())
    };
    assert_eq!(read(&["a=b=c", "a="]).unwrap(), ["a b=c", "a "]);
    for (arguments, expected) in [
        (&["hunter2"][..], "the `-c, --set KEY=VALUE` has no `=`"),
        (&["a=1", "hunter2"], "number 2 of the `-c, --set KEY=VALUE` has no `=`"),
        (&["=hunter2"], "the `-c, --set KEY=VALUE` has nothing before its `=`"),
    ] {
        assert_eq!(read(arguments).unwrap_err(), expected);
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
