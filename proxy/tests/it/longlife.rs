//! Weeks of running: logs that are bounded, clocks that jump, disks that fill up, homes that cannot be written.

use std::path::Path;

use mock_upstream::script::{Rule, Script, Turn};

use crate::connection::{turn, user};
use crate::rig::{Setting, code, prodex, until};

/// The run log's files in a directory, in their order.
fn logs(directory: &Path) -> Vec<String> {
    let names =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name.ends_with(".jsonl")).collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_log_has_parts_and_all_of_them_a_limit_and_why_reads_them() {
    let script = Script::rules([Rule::new(Turn::text("a b c"))]);
    let setting = Setting::new(&["one"], script);
    let setting = setting.set("PRODEX_LOG_FILE_SIZE", "64KiB").set("PRODEX_LOG_TOTAL_SIZE", "256KiB");
    let (_mock, proxy) = setting.start().await;
    let directory = proxy.sandbox.logs();
    let current = proxy.ready["log"].as_str().unwrap().to_owned();
    let mut parts = 0;
    while parts < 6 {
        for _ in 0..20 {
            assert_eq!(turn(&proxy, "", &user("x")).await.status(), 200);
        }
        let pointed = std::fs::read_to_string(directory.join("prodex-runtime-latest.path")).unwrap();
        assert_eq!(pointed.trim(), current, "the pointer is right at every moment");
        parts = proxy
            .log()
            .events("log_continued")
            .filter_map(|line| line.fields["part"].as_u64())
            .max()
            .unwrap_or(0);
    }
    until("the last lines", || proxy.log().lines.last().is_some_and(|line| line.event == "stream_complete"))
        .await;
    let log = proxy.log();
    assert_eq!(log.skipped, 0, "no line is torn");
    let total: u64 =
        logs(&directory).iter().map(|name| std::fs::metadata(directory.join(name)).unwrap().len()).sum();
    assert!(total <= 256 * 1024, "{total}");
    // What is kept of the run has no gap.
    let of = |event: &str| {
        log.events(event).map(|line| line.fields["request"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    // Two threads serve, so that the ends of two requests may be told in either order.
    let mut ended = of("stream_complete");
    ended.sort_unstable();
    assert!(ended.windows(2).all(|pair| pair[1] == pair[0] + 1) && ended.len() > 100, "{ended:?}");
    // A request of each part that is left, and of the file that is written, can be explained.
    for request in [ended[ended.len() / 3].to_string(), ended[ended.len() / 2].to_string(), "last".to_owned()]
    {
        let said = prodex(&proxy.sandbox, &["why", &request]).await;
        assert_eq!(code(&said), Some(0), "{request}: {}", said.stderr);
        assert!(said.stdout.contains("one"), "{}", said.stdout);
    }
    let gone = prodex(&proxy.sandbox, &["why", "1"]).await;
    assert_eq!(code(&gone), Some(1), "{}", gone.stdout);
    assert!(gone.stderr.contains("the log does not tell of request 1; it has requests"), "{}", gone.stderr);
    proxy.stop().await;
}
