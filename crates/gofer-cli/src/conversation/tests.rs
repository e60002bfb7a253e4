use super::*;

#[tokio::test(start_paused = true)]
async fn an_extension_that_says_nothing_is_given_up() {
    let hint = || "is it an extension?".to_owned();
    let failure = limited(std::future::pending::<Result<(), _>>(), hint()).await.unwrap_err();
    assert_eq!(failure.message(), "the extension said nothing for 2 minutes");
    assert!(format!("{failure:?}").contains(&hint()));
    let refused = std::future::ready(Err::<(), _>(Status::not_found("no image")));
    let refused = limited(refused, hint()).await.unwrap_err();
    assert_eq!(refused.code(), Some(Code::NotFound));
    assert!(!format!("{refused:?}").contains(&hint()));
}

#[test]
fn settings_of_flags_win() {
    let answered = vec![("Host".to_owned(), "a".to_owned()), ("token".to_owned(), "b".to_owned())];
    let given = HashMap::from([("host".to_owned(), "c".to_owned())]);
    let merged = merge(answered, &given);
    assert_eq!(merged.len(), 2);
    assert_eq!((&*merged["host"], &*merged["token"]), ("c", "b"));
}
