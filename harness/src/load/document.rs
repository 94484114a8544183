//! A run as a JSON document for other programs: numbers where a run has histograms. `schema.json` describes it.

use serde_json::{Value, json};

use super::result::{Cell, Run, Times};

/// The schema of the document.
pub const SCHEMA: &str = include_str!("schema.json");

/// The document.
#[must_use]
pub fn of(run: &Run) -> Value {
    let stages: Vec<Value> = run.stages.iter().map(|stage| json!(stage)).collect();
    let ticks: Vec<Value> = run
        .ticks
        .iter()
        .map(|tick| {
            json!({
                "at": tick.index as f64 * run.tick_seconds,
                "stage": tick.stage,
                "due": tick.due,
                "sent": tick.sent,
                "ok": tick.ok,
                "not_ok": tick.not_ok,
                "in_flight": tick.in_flight,
                "late": tick.late,
                "events": tick.events,
                "bytes": tick.bytes,
                "response_ms": times(&tick.response),
                "first_byte_ms": times(&tick.first_byte),
            })
        })
        .collect();
    json!({
        "version": run.version,
        "passed": run.passed(),
        "scenario": run.scenario,
        "target": run.target,
        "seed": run.seed,
        "started": run.started,
        "seconds": run.seconds,
        "machine": run.machine,
        "requests": run.requests(),
        "stages": stages,
        "cells": run.cells.iter().map(cell).collect::<Vec<_>>(),
        "tick_seconds": run.tick_seconds,
        "ticks": ticks,
        "driver": run.driver,
        "processes": run.processes,
        "pressure": run.pressure,
        "gates": run.gates,
        "cut_short": run.cut_short,
        "examples": run.examples,
    })
}

fn cell(cell: &Cell) -> Value {
    json!({
        "stage": cell.stage,
        "route": cell.route,
        "outcome": cell.outcome,
        "count": cell.count,
        "events": cell.events,
        "bytes": cell.bytes,
        "service_ms": times(&cell.service),
        "response_ms": times(&cell.response),
        "first_byte_ms": times(&cell.first_byte),
        "first_content_ms": times(&cell.first_content),
        "gap_ms": times(&cell.gap),
        "added_ms": times(&cell.added),
        "added_event_ms": times(&cell.added_event),
    })
}

fn times(times: &Times) -> Value {
    if times.0.is_empty() {
        return Value::Null;
    }
    json!({
        "count": times.0.len(),
        "mean": times.0.mean() / 1e3,
        "p50": times.millis(0.5),
        "p90": times.millis(0.9),
        "p95": times.millis(0.95),
        "p99": times.millis(0.99),
        "p999": times.millis(0.999),
        "max": times.millis(1.0),
    })
}
