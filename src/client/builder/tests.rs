use super::*;
use crate::ErrorKind;

#[test]
fn what_is_wrong_is_named_and_not_repeated() {
    let gofer = || GoferBuilder::new("localhost:8080".to_owned());
    for (builder, key) in [
        (GoferBuilder::new("localhost:http".to_owned()), "`address`"),
        (gofer().token("se\ncret"), "`token`"),
        (gofer().token(""), "`token`"),
        (gofer().token("se cret"), "`token`"),
        (gofer().token("sécret"), "`token`"),
        (gofer().ca_certificate("secret"), "`ca_certificate`"),
    ] {
        let error = builder.build().map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidParameter);
        assert!(error.to_string().contains(key), "{error}");
        assert!(!error.to_string().contains("cret"), "{error}");
    }
    assert!(!format!("{:?}", gofer().token("secret")).contains("secret"));
}
