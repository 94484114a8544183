//! Which URLs name a proxy that may be tried. The probes themselves are in `tests/it/doctor`.

use super::*;

fn parse(url: &str) -> Result<(String, String), TargetError> {
    let target = Target::parse(url, || None)?;
    Ok((target.address.to_string(), target.prefix))
}

#[test]
fn only_a_proxy_on_this_machine_is_tried() {
    let ok = |address: &str, prefix: &str| Ok((address.to_owned(), prefix.to_owned()));
    assert_eq!(parse("http://127.0.0.1:80/k/abc"), ok("127.0.0.1:80", "/k/abc"));
    assert_eq!(parse("http://localhost:80/k/abc/backend-api/codex"), ok("127.0.0.1:80", "/k/abc"));
    assert_eq!(parse("http://[::1]:80/"), ok("[::1]:80", ""));
    assert_eq!(parse("http://127.0.0.1:80"), ok("127.0.0.1:80", ""));
    for url in ["http://192.0.2.1:80/", "http://prodex-doctor.example:80/k/a"] {
        assert!(matches!(parse(url), Err(TargetError::Remote(_))), "{url}");
    }
    for url in ["", "127.0.0.1:80", "ftp://127.0.0.1:80/", "http://127.0.0.1/", "http://127.0.0.1:80/k/a b"] {
        assert!(matches!(parse(url), Err(TargetError::Url(_))), "{url}");
    }
}

#[test]
fn no_probe_shows_the_right_capability_where_it_must_not() {
    let target = Target::parse("http://127.0.0.1:80/k/capability7", || None).unwrap();
    for probe in PROBES.iter().filter(|probe| probe.about == "capability") {
        let request = String::from_utf8((probe.request)(&target)).unwrap();
        assert!(!request.contains("capability7"), "{}", probe.name);
    }
    let names: std::collections::BTreeSet<&str> = PROBES.iter().map(|probe| probe.name).collect();
    assert_eq!(names.len(), PROBES.len());
}
