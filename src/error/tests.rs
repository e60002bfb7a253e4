use super::*;

#[derive(Debug)]
struct Outer(std::num::ParseIntError);
impl fmt::Display for Outer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cannot read the port")
    }
}
impl std::error::Error for Outer {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

#[test]
fn a_converted_error_keeps_its_causes_for_the_log() {
    let error = Error::from(Outer("x".parse::<u16>().unwrap_err()));
    assert_eq!(error.kind(), ErrorKind::Internal);
    assert_eq!(error.to_string(), "cannot read the port");
    assert!(format!("{error:?}").contains("invalid digit"), "{error:?}");
}

#[test]
fn a_boxed_error_keeps_its_sentence_and_its_causes() {
    let error = || Error::unavailable("try later").with_source("x".parse::<u16>().unwrap_err());
    let shared: Box<dyn std::error::Error + Send + Sync> = error().into();
    let local: Box<dyn std::error::Error> = error().into();
    assert_eq!((shared.to_string(), local.to_string()), ("try later".into(), "try later".into()));
    assert!(local.source().unwrap().to_string().contains("invalid digit"));
    assert_eq!(format!("{shared:?}"), format!("{:?}", error()));
}

#[test]
fn parameters_and_configuration_are_named_as_what_they_are() {
    let error = Error::invalid_parameter("every", "must be at least `least`")
        .and_configuration("least", "must be positive");
    assert_eq!(
        error.to_string(),
        "parameter `every`: must be at least `least`; configuration `least`: must be positive"
    );
    let problems = vec![Problem::new("least", "is required"), Problem::general("and more")];
    let error = Error::invalid(ErrorKind::InvalidConfiguration, problems)
        .and_parameter("every", "is required");
    assert_eq!(
        error.to_string(),
        "configuration `least`: is required; and more; parameter `every`: is required"
    );
}

#[test]
fn an_error_is_one_pointer() {
    assert_eq!(size_of::<Error>(), size_of::<usize>());
}
