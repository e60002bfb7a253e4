use super::*;

#[test]
fn a_reference_is_the_whole_setting() {
    let secret = |key| Setting::Reference(ReferenceKind::PipelineSecret, key);
    for setting in ["pipeline_secret{{ token }}", " pipeline_secret{{token}}\n"] {
        assert_eq!(Setting::of(setting), secret("token"), "{setting}");
    }
    let global = Setting::Reference(ReferenceKind::GlobalSecret, "a b");
    assert_eq!(Setting::of("global_secret{{ a b }}"), global);
    let object = Setting::Reference(ReferenceKind::PipelineObject, "x");
    assert_eq!(Setting::of("pipeline_object{{ x }}"), object);
}

#[test]
fn what_looks_like_a_reference_is_no_value() {
    for setting in [
        // The kind.
        "globalsecret{{x}}",
        "global-secret{{ x }}",
        "GLOBAL_SECRET{{ x }}",
        "Global_Secret{{ x }}",
        "global secret{{ x }}",
        "secret{{ a }}",
        "run_object{{ a }}",
        "env{{ A }}",
        "vault{{a}}",
        "{{ global_secret.x }}",
        "{{ x }}",
        // The braces.
        "global_secret{{ x",
        "global_secret{{x}",
        "global_secret{{x}}}",
        "global_secret{ x }",
        "global_secret{x",
        "global_secret {{ x }}",
        "global_secret\t{{x}}",
        "global_secret{ { x } }",
        "global_secret{{{ x }}}",
        "global_secret{{ {x} }}",
        "global_secret{{ a }}{{ b }}",
        "vault{{ a",
        "{{{ x }}}",
        "{{{{x}}}}",
        // The key.
        "global_secret{{}}",
        "global_secret{{  }}",
        // The rest.
        "Bearer global_secret{{ x }}",
        "global_secret{{ x }}.",
        "$global_secret{{ x }}",
        "é:pipeline_object{{ x }} and {{ more }}",
        r#"{"token": "global_secret{{ x }}"}"#,
        "\u{feff}global_secret{{ x }}",
        // Between the kind and the braces.
        "global_secret\u{200b}{{ x }}",
        "global_secret:{{ x }}",
        "global_secret=\"{{ x }}\"",
        "global_secret: {{ x }} is how not to write one",
    ] {
        assert_eq!(Setting::of(setting), Setting::Malformed, "{setting}");
    }
}

#[test]
fn other_texts_with_braces_are_values() {
    for setting in [
        "",
        "5m",
        "{",
        "a{b}",
        "Release {{ tag }} of {{ repository }}",
        "{{ name }} was released",
        "hello {{name}}!",
        r#"{"secret": {"object": 1}}"#,
        r#"{"a":{"b":{}}}"#,
        "object {",
        "a secret is kept",
        "global_secret",
        r#"{"global_secret": {"a": 1}}"#,
        "a {{ x }}",
        "Release {{ tag }}",
        "{é}",
    ] {
        assert_eq!(Setting::of(setting), Setting::Value, "{setting}");
    }
}
