//! Manifests that are right, and every mistake with its place.

use super::*;

const GOOD: &str = r#"
[[case]]
id = "wire"
filter = "package(wire)"
tags = ["parallel-safe", "smoke"]
weight = "20ms"

[[case]]
id = "many"
filter = "test(/^many::/)"
tags = ["stress"]
reason = "a thousand sockets"
timeout = "2m"

[[case]]
id = "late"
filter = "test(late)"
tags = ["quarantine"]
reason = "flaps"
quarantine = { owner = "a", issue = "no. 7", since = "2026-11-01", expires = "2026-12-01", fails-with = "left" }

[[shard]]
label = "all"
filter = "all()"
"#;

fn read(text: &str) -> (Manifest, Vec<Mistake>) {
    Manifest::read(&Text::new("tests.toml", text))
}

fn problems(text: &str) -> Vec<String> {
    read(text).1.into_iter().map(|mistake| mistake.problem).collect()
}

#[test]
fn a_manifest_is_cases_and_shards_with_their_lines() {
    let (manifest, mistakes) = read(GOOD);
    assert!(mistakes.is_empty(), "{mistakes:?}");
    let lines: Vec<_> = manifest.cases.iter().map(|case| (case.id.as_str(), case.line)).collect();
    assert_eq!(lines, [("wire", 2), ("many", 8), ("late", 15)]);
    assert_eq!(manifest.cases[0].weight, Some(Duration::from_millis(20)));
    assert_eq!(manifest.cases[1].timeout, Some(Duration::from_secs(120)));
    assert_eq!(manifest.cases[2].lane(), Some(Tag::Quarantine));
    assert_eq!(manifest.shards, [Label { name: "all".into(), filter: "all()".into(), line: 22 }]);
}

#[test]
fn every_contradiction_is_said_at_once() {
    let text = GOOD
        .replace("[\"parallel-safe\", \"smoke\"]", "[\"parallel-safe\", \"serial\", \"smoek\"]")
        .replace("reason = \"a thousand sockets\"\n", "")
        .replace("\"2m\"", "\"2 parsecs\"")
        .replace("\"2026-12-01\"", "\"2026-10-01\"")
        .replace("id = \"late\"", "id = \"many\"");
    let expected = [
        "a second case `many`",
        "no tag `smoek`",
        "case `wire` contradicts itself: parallel-safe and serial",
        "`2 parsecs` is no time to wait",
        "case `many` does not say why it is not parallel-safe",
        "the quarantine ends before it begins",
    ];
    assert_eq!(problems(&text), expected);
}

#[test]
fn lanes_reasons_and_quarantine_belong_together() {
    let none = GOOD.replace("[\"parallel-safe\", \"smoke\"]", "[\"smoke\"]");
    assert_eq!(
        problems(&none),
        ["case `wire` is in no lane", "case `wire` does not say why it is not parallel-safe"]
    );
    let smoke = GOOD.replace("[\"stress\"]", "[\"stress\", \"smoke\"]");
    assert_eq!(problems(&smoke), ["case `many` contradicts itself: smoke in its lane"]);
    let untold = GOOD.replace("tags = [\"stress\"]", "tags = [\"quarantine\"]");
    assert_eq!(problems(&untold), ["case `many` is in quarantine without saying why"]);
    let untagged = GOOD.replace("tags = [\"quarantine\"]", "tags = [\"serial\"]");
    assert_eq!(problems(&untagged), ["case `late` has a quarantine and not the tag"]);
    assert_eq!(problems(&GOOD.replace("\"no. 7\"", "\" \"")), ["an issue that says nothing"]);
}

#[test]
fn a_mistake_points_at_its_line() {
    let (_, mistakes) = read(&GOOD.replace("\"stress\"", "\"stres\""));
    let handler = miette::GraphicalReportHandler::new_themed(miette::GraphicalTheme::unicode_nocolor());
    let mut shown = String::new();
    handler.render_report(&mut shown, &mistakes[0]).unwrap();
    insta::assert_snapshot!(shown, @r#"
      × no tag `stres`
        ╭─[tests.toml:11:9]
     10 │ filter = "test(/^many::/)"
     11 │ tags = ["stres"]
        ·         ───┬───
        ·            ╰── here
     12 │ reason = "a thousand sockets"
        ╰────
      help: parallel-safe, serial, env, stress, quarantine, smoke, continuation
    "#);
}

#[test]
fn what_is_not_toml_and_what_is_no_key_are_mistakes() {
    assert_eq!(problems("[[case]\n").len(), 1);
    assert!(problems(&GOOD.replace("weight", "wieght"))[0].contains("unknown field `wieght`"));
}

#[test]
fn a_case_is_added_behind_the_others_and_nothing_else_changes() {
    let new = Unowned { id: "many".into(), filter: "binary_id(=a) & test(=b)".into() };
    let text = with_cases(GOOD, &[new]).unwrap();
    let added =
        "\n[[case]]\nid = \"many-2\"\nfilter = \"binary_id(=a) & test(=b)\"\ntags = [\"parallel-safe\"]\n";
    assert!(text.contains(added), "{text}");
    assert_eq!(text.replace(added, ""), GOOD);
    assert_eq!(problems(&text), Vec::<String>::new());
}

proptest::proptest! {
    #[test]
    fn no_text_breaks_the_reader(text in "(\\[\\[case\\]\\]|id|filter|tags|=|\"[a-z]{0,3}\"|\\[|\\]|\\n|#|.){0,40}") {
        let _ = read(&text);
    }
}
