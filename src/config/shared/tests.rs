use super::*;
use crate::{config::Ignored, route::test_support::server};

fn build(of: &Shared<u32, String>, message: u32, cx: &mut BuildCx<'_>) -> Arc<String> {
    of.get_or_build(message, cx, |text| text != "0", |n, _| Ok(n.to_string()))
        .unwrap()
}

#[test]
fn equal_messages_are_one_value_while_it_is_used() {
    let server = server();
    let (cx, shared) = (&mut BuildCx::new(&server), Shared::default());
    let one = build(&shared, 1, cx);
    assert!(Arc::ptr_eq(&one, &build(&shared, 1, cx)));
    assert_eq!(*build(&shared, 2, cx), "2");
    // More kinds than are remembered: still right, no longer shared.
    let many: Vec<_> = (10..30).map(|n| build(&shared, n, cx)).collect();
    assert!(!Arc::ptr_eq(&one, &build(&shared, 1, cx)));
    assert!(Arc::ptr_eq(&many[19], &build(&shared, 29, cx)));
    assert!(shared.0.lock().unwrap().len() <= REMEMBERED);
}

#[test]
fn state_and_warnings_are_not_shared() {
    let server = server();
    let (cx, shared) = (&mut BuildCx::new(&server), Shared::default());
    let stateful = build(&shared, 0, cx);
    assert!(!Arc::ptr_eq(&stateful, &build(&shared, 0, cx)));
    let warned: Vec<_> = (0..2)
        .map(|_| {
            let build = |_, cx: &mut BuildCx<'_>| {
                cx.ignored.push(Ignored {
                    path: "field".into(),
                    why: "",
                });
                Ok(String::new())
            };
            shared.get_or_build(7, cx, |_| true, build).unwrap()
        })
        .collect();
    assert!(!Arc::ptr_eq(&warned[0], &warned[1]));
    assert_eq!(cx.ignored.len(), 2);
}

#[test]
fn equal_values_are_one() {
    let recent = Recent::default();
    let one = recent.share("one".to_owned());
    assert!(Arc::ptr_eq(&one, &recent.share("one".to_owned())));
    assert_eq!(*recent.share("two".to_owned()), "two");
    assert!(Arc::ptr_eq(&one, &recent.share("one".to_owned())));
}
