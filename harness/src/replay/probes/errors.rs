//! Every error status in use, with a body and a `Retry-After`.

use super::{Made as _, Maker, whole};

/// The statuses from 400 to 599 that the IANA registry has, and those that vendors and their edges use.
const STATUSES: &[u16] = &[
    400, 401, 402, 403, 404, 405, 406, 407, 408, 409, 410, 411, 412, 413, 414, 415, 416, 417, 418, 421, 422,
    423, 424, 425, 426, 428, 429, 431, 451, 498, 499, 500, 501, 502, 503, 504, 505, 506, 507, 508, 510, 511,
    520, 521, 522, 523, 524, 525, 526, 529, 530, 599,
];

pub(super) fn add(maker: &mut Maker<'_>) {
    for status in STATUSES {
        let name = format!("error-{status}");
        let body =
            format!("{{\"error\": {{\"type\":\"some_error\", \"code\":\"{status}\",\"message\":\"é\"}} }}\n");
        let headers =
            [("Content-Type", "application/json"), ("Retry-After", "17"), ("x-request-id", "req_0123")];
        let exchange = maker.post(&name, "{\"stream\":true}").answered(whole(*status, &headers, body));
        maker.one(&name, exchange);
    }
}
