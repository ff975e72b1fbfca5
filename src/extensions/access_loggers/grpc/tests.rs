use super::*;
use crate::http::{Flag, ResponseFlags};

#[test]
fn header_names_are_looked_up_in_lower_case() {
    let headers = Headers::new(vec!["X-Team".into()], Vec::new(), Vec::new());
    assert_eq!(headers.request_names(), ["x-team"]);
}

#[test]
fn every_flag_of_the_api_is_told() {
    let mut all = ResponseFlags::default();
    for flag in Flag::ALL {
        all.set(*flag);
    }
    let told = entry::flags(all);
    let text = format!("{told:?}");
    assert!(!text.contains("false") && !text.contains("None"), "{text}");
    let none = format!("{:?}", entry::flags(ResponseFlags::default()));
    assert!(!none.contains("true") && !none.contains("Some"), "{none}");
}
