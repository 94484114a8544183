//! A proxy that is killed under its client, as `kill -9` does it: the launcher starts another, and the session goes on.
//!
//! Once within a turn, while the client runs a command and its WebSocket is idle; and once between two turns of a
//! client that stays.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use harness::clients::Client;
use harness::clients::codex::{Codex, Mode, Reach};
use harness::compat::{
    CaseResult, Check, Evidence, Lane, PATIENCE, Player, Upstream, outlives_a_kill, two_turns,
};
use harness::process::Program;

use super::proxy::Home;

/// Both, each with a mock and a proxy of its own.
pub(super) async fn run(
    program: &Path,
    client: &(Client, PathBuf),
    mode: Mode,
    each: &mut impl FnMut(&CaseResult),
) -> Result<(Vec<CaseResult>, Vec<Check>)> {
    let result = within_a_turn(program, client, mode).await?;
    each(&result);
    let checks = between_turns(program, client, mode).await.context("between two turns")?;
    Ok((vec![result], checks))
}

async fn within_a_turn(
    program: &Path,
    (client, codex): &(Client, PathBuf),
    mode: Mode,
) -> Result<CaseResult> {
    // The home is there before its story is: the command names it.
    let upstream = Upstream::start(outlives_a_kill("").accounts).await?;
    let home = Home::make(program, upstream.accounts()).await?;
    let story = outlives_a_kill(&home.kill());
    let reach = Reach::Wrapper(home.wrapper(&upstream.plain, mode.needs_tls()));
    let lane = Lane { mode, mock: &upstream.plain, reach };
    let mut player = Player::begin(client, codex, &lane, &story.scenario, PATIENCE).await?;
    while player.step().await? {}
    Ok(player.judge().await)
}

async fn between_turns(program: &Path, (_, codex): &(Client, PathBuf), mode: Mode) -> Result<Vec<Check>> {
    let (rules, accounts) = two_turns();
    let upstream = Upstream::start(accounts).await?;
    let mock = &upstream.plain;
    mock.set_rules(rules)?;
    let home = Home::make(program, upstream.accounts()).await?;
    let reach = Reach::Wrapper(home.wrapper(mock, mode.needs_tls()));
    let codex = Codex::new(codex, mode, reach, &Upstream::client_account()).await?;
    let mut conversation = codex.converse(PATIENCE).await?;
    let first = conversation.ask("the first turn").await?;
    let killed = Program::new("/bin/sh").args(["-c", &home.kill()]).run(PATIENCE).await?;
    if killed.exit.is_none_or(|exit| exit.code() != Some(0)) {
        bail!("no proxy could be killed: {}", killed.stderr.trim());
    }
    let second = conversation.ask("the second turn").await?;
    let stopped = conversation.end().await?;
    let Evidence { owners, violations, .. } = Evidence::of_journal(&mock.journal().exchanges());
    let said = [first, second].map(|said| said.unwrap_or_else(|error| error));
    let stragglers: Vec<&str> = stopped.stragglers.iter().map(|left| left.command.as_str()).collect();
    let hits = codex.tripwire_hits();
    Ok(vec![
        Check {
            what: "both turns are answered".to_owned(),
            ok: said == ["First answer.", "Second answer."],
            seen: format!("{said:?}"),
        },
        Check {
            what: "one account serves both, and nothing of it reaches the other".to_owned(),
            ok: owners.len() == 1 && owners.values().all(|one| one.len() == 1) && violations.is_empty(),
            seen: format!("{owners:?} {violations:?}"),
        },
        Check {
            what: "the launcher tells that the proxy was started again".to_owned(),
            ok: stopped.stderr.contains("ended 1 time(s) and was started again"),
            seen: stopped.stderr.clone(),
        },
        Check {
            what: "no request to any other address, and nothing left behind".to_owned(),
            ok: hits.is_empty() && stragglers.is_empty(),
            seen: format!("{hits:?} {stragglers:?}"),
        },
    ])
}
