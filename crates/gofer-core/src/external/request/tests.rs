use super::extension;

#[test]
fn the_name_is_the_rest_of_the_path() {
    for (path, name) in [
        ("/external/github", Some("github")),
        ("/external/my%20own%25%C3%BC", Some("my own%ü")),
        ("/external/", None),
        ("/external", None),
        ("/external/github/", None),
        ("/external/github/push", None),
        ("/External/github", None),
        ("/external/%", None),
        ("/external/%2", None),
        ("/external/%zz", None),
        ("/external/%ff", None),
        ("/external/%%32", None),
        ("/external/a%20%", None),
        ("/", None),
    ] {
        assert_eq!(extension(path).as_deref(), name, "{path}");
    }
}
