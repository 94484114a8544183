//! Bodies that were recorded decoded, and the header fields that speak of them as they were sent.
//!
//! What cannot go together cannot be replayed. `zstd`, in which Codex sends its requests, is encoded
//! again; of another coding the `content-encoding` field is taken out, and noted. A `content-length` that
//! is not the body's is set right, and noted. A body that is still encoded is known by its first bytes.

use wire::capture::{Headers, Payload, Rest};

/// The level that clients use by default. Any gives a body that decodes to the same.
const LEVEL: i32 = 3;

/// Makes header fields and body agree.
pub(in crate::capture) fn agree(headers: &mut Headers, body: Option<&mut Payload>, rest: &mut Rest) {
    let Some(body) = body.filter(|body| !body.0.is_empty()) else { return };
    let is = |(name, _): &(String, String), wanted: &str| name.eq_ignore_ascii_case(wanted);
    let coding = headers.iter().find(|field| is(field, "content-encoding"));
    let coding = coding.map(|(_, value)| value.trim().to_ascii_lowercase()).unwrap_or_default();
    if is_decoded(&coding, &body.0) {
        let encoded = (coding == "zstd").then(|| zstd::encode_all(&body.0[..], LEVEL).ok()).flatten();
        match encoded {
            Some(encoded) => {
                body.0 = encoded;
                rest.insert("encoded_again".into(), coding.into());
            }
            None => {
                headers.retain(|field| !is(field, "content-encoding"));
                rest.insert("removed_content_encoding".into(), coding.into());
            }
        }
    }
    let length = body.0.len().to_string();
    for field in headers.iter_mut().filter(|field| is(field, "content-length")) {
        if field.1.trim() != length {
            let recorded = std::mem::replace(&mut field.1, length.clone());
            rest.insert("recorded_content_length".into(), recorded.into());
        }
    }
}

/// Whether a body is not in the coding that it is said to be in.
fn is_decoded(coding: &str, body: &[u8]) -> bool {
    match coding {
        "" | "identity" => false,
        "zstd" => !body.starts_with(&[0x28, 0xB5, 0x2F, 0xFD]),
        "gzip" | "x-gzip" => !body.starts_with(&[0x1F, 0x8B]),
        // These begin with no mark of their own, but compressed bytes are hardly ever text.
        _ => std::str::from_utf8(body).is_ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agreed(coding: &str, body: &[u8]) -> (Headers, Vec<u8>, Rest) {
        let mut headers = vec![
            ("Content-Length".to_owned(), "7".to_owned()),
            ("Content-Encoding".to_owned(), coding.to_owned()),
        ];
        let (mut body, mut rest) = (Payload(body.to_vec()), Rest::new());
        agree(&mut headers, Some(&mut body), &mut rest);
        (headers, body.0, rest)
    }

    #[test]
    fn zstd_is_encoded_again() {
        let (headers, body, rest) = agreed("zstd", b"{\"a\":1}");
        assert_eq!(zstd::decode_all(&body[..]).unwrap(), b"{\"a\":1}");
        assert_eq!(headers[0].1, body.len().to_string());
        assert_eq!((headers.len(), &rest["encoded_again"]), (2, &"zstd".into()));
        let (again, same, rest) = agreed("zstd", &body);
        assert_eq!(
            (again[0].1.as_str(), same, rest.len()),
            (body.len().to_string().as_str(), body.clone(), 1)
        );
    }

    #[test]
    fn of_another_coding_the_field_goes() {
        let (headers, body, rest) = agreed("br", b"{\"a\":1}");
        assert_eq!((headers.len(), body.len(), &rest["removed_content_encoding"]), (1, 7, &"br".into()));
        let (headers, _, rest) = agreed("gzip", &[0x1F, 0x8B, 8, 0, 0, 0, 0]);
        assert_eq!((headers.len(), rest.len()), (2, 0));
    }
}
