//! Where a list goes on: an opaque token of the revision and the last key of a page.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::status::Status;

const VERSION: &str = "meta.k8s.io/v1";

/// Read from, and printed as, a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Continuation {
    /// The revision of all pages; `None` to go on with whatever there is, for those whose revision has been forgotten.
    pub(super) revision: Option<u64>,
    /// The last key of the page before, without the prefix of the list.
    pub(super) after: String,
}

#[derive(Serialize, Deserialize)]
struct Wire {
    v: String,
    rv: i64,
    /// A key with a zero byte behind it: the smallest that is greater.
    start: String,
}

impl Continuation {
    pub(super) fn print(&self) -> String {
        let rv = self.revision.map_or(-1, |revision| i64::try_from(revision).unwrap_or(i64::MAX));
        let start = format!("{}\0", self.after);
        let wire = Wire { v: VERSION.to_owned(), rv, start };
        // Strings and numbers always have a JSON form.
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(&wire).unwrap_or_default())
    }

    pub(super) fn parse(token: &str) -> Result<Self, Status> {
        let invalid = |why: &str| Status::bad_request(format!("continue key is not valid: {why}"));
        let bytes = URL_SAFE_NO_PAD
            .decode(token.trim_end_matches('='))
            .map_err(|error| invalid(&error.to_string()))?;
        let wire: Wire =
            serde_json::from_slice(&bytes).map_err(|error| invalid(&error.to_string()))?;
        if wire.v != VERSION {
            let why = format!("server does not recognize this encoded version {:?}", wire.v);
            return Err(invalid(&why));
        }
        let Some(after) = wire.start.strip_suffix('\0').filter(|after| !after.is_empty()) else {
            return Err(invalid("encoded start key empty"));
        };
        let revision = match wire.rv {
            -1 => None,
            0 => {
                return Err(invalid(
                    "incorrect encoded start resourceVersion (version meta.k8s.io/v1)",
                ));
            }
            rv => Some(u64::try_from(rv).map_err(|_| invalid("negative resourceVersion"))?),
        };
        Ok(Self { revision, after: after.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use proptest::prelude::*;

    use super::Continuation;

    #[test]
    fn tokens_that_nobody_gave_out_are_refused() {
        let token = |text: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
        for bad in [
            "!".to_owned(),
            String::new(),
            token("{}"),
            token(r#"{"v":"meta.k8s.io/v2","rv":1,"start":"a\u0000"}"#),
            token(r#"{"v":"meta.k8s.io/v1","rv":0,"start":"a\u0000"}"#),
            token(r#"{"v":"meta.k8s.io/v1","rv":-7,"start":"a\u0000"}"#),
            token(r#"{"v":"meta.k8s.io/v1","rv":1,"start":""}"#),
        ] {
            let status = Continuation::parse(&bad).expect_err(&bad);
            assert_eq!(status.code, 400, "{bad}");
            assert!(status.message.starts_with("continue key is not valid"), "{}", status.message);
        }
    }

    proptest! {
        #[test]
        fn a_printed_token_is_read_back(revision in prop::option::of(1..=i64::MAX as u64), after in "[a-z0-9/.-]{1,40}") {
            let continuation = Continuation { revision, after };
            prop_assert_eq!(Continuation::parse(&continuation.print()), Ok(continuation));
        }
    }
}
