use super::*;

#[test]
fn a_reference_is_the_whole_setting() {
    for setting in ["pipeline_secret{{ token }}", " pipeline_secret{{token}} "] {
        assert_eq!(reference(setting), Some((ReferenceKind::PipelineSecret, "token")), "{setting}");
    }
    assert_eq!(reference("global_secret{{ a b }}"), Some((ReferenceKind::GlobalSecret, "a b")));
    assert_eq!(reference("pipeline_object{{ x }}"), Some((ReferenceKind::PipelineObject, "x")));
    for value in ["5m", "x pipeline_secret{{ a }}", "pipeline_secret{{ a", "run_object{{ a }}"] {
        assert_eq!(reference(value), None, "{value}");
    }
}
