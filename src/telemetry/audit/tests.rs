use std::fs;
use std::path::Path;

use serde_json::Value;

use super::*;

fn audit(path: &Path, rotate_at: u64) -> Audit {
    Audit::to_file(AuditFile { path: path.to_owned(), addresses: AuditAddresses::Prefix, rotate_at }).unwrap()
}

fn refused(reason: &'static str) -> Event {
    Event::Refused { stage: "address", reason, address: Some("192.0.2.0/24".to_owned()), queue: None, link: None }
}

fn lines(path: &Path) -> Vec<Value> {
    fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn flush(audit: &Audit) {
    audit.flush(Duration::from_secs(10));
}

#[test]
fn each_decision_is_a_line_of_json_in_its_order() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    let log = audit(&path, u64::MAX);
    log.record(refused("address-denied"));
    let link = LinkMark { issuer: "https://example.com".into(), kid: "k1".into(), hash: link_hash("x.y.z") };
    log.record(Event::Admitted { address: None, queue: "support@chat.example.com".into(), link: Some(link), ja4: None });
    flush(&log);
    let lines = lines(&path);
    assert_eq!(lines.len(), 2);
    assert_eq!(
        (&lines[0]["event"], &lines[0]["reason"], &lines[0]["address"], &lines[0]["seq"]),
        (&"refused".into(), &"address-denied".into(), &"192.0.2.0/24".into(), &1.into())
    );
    let time = lines[0]["time"].as_str().unwrap();
    assert!(time.len() == "2026-11-23T04:00:00.000Z".len() && time.ends_with('Z'), "{time}");
    assert_eq!((&lines[1]["event"], &lines[1]["link"]["kid"]), (&"admitted".into(), &"k1".into()));
    assert_eq!(lines[1]["link"]["hash"].as_str().unwrap().len(), 16);
    assert_eq!(log.counts(), Some(AuditCounts { written: 2, left_out: 0, lost: 0 }));
}

#[test]
fn a_flood_of_refusals_is_fifty_lines_and_one_that_counts_the_rest_and_hides_no_admission() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    let log = audit(&path, u64::MAX);
    for _ in 0..600 {
        log.record(refused("address-denied"));
        log.record(refused("not-well-formed"));
    }
    log.record(Event::Stopped);
    flush(&log);
    let lines = lines(&path);
    let of = |event: &str| lines.iter().filter(|line| line["event"] == event).collect::<Vec<_>>();
    // A slow machine may take several windows for it.
    let told: u64 = of("left-out").iter().map(|line| line["count"].as_u64().unwrap()).sum();
    let by_reason: u64 =
        of("left-out").iter().flat_map(|line| line["of"].as_object().unwrap().values()).map(|count| count.as_u64().unwrap()).sum();
    assert_eq!(of("refused").len() as u64 + told, 1200);
    assert_eq!(told, by_reason);
    assert!(of("refused").len() < 600, "{}", of("refused").len());
    assert_eq!(of("stopped").len(), 1);
}

#[test]
fn windows_bound_each_kind_by_itself() {
    let start = Instant::now();
    let mut rates = Rates::new(start);
    assert_eq!((0..1000).filter(|_| rates.admits(Kind::Refusal)).count(), 50);
    assert!(rates.admits(Kind::Other));
    rates.left_out.insert("x", 950);
    assert!(rates.roll(start).is_empty());
    assert_eq!(rates.roll(start + WINDOW), BTreeMap::from([("x", 950)]));
    assert!(rates.admits(Kind::Refusal));
}

#[test]
fn what_was_left_out_is_told_also_where_nothing_follows() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    let log = audit(&path, u64::MAX);
    (0..200).for_each(|_| log.record(refused("address-denied")));
    let deadline = Instant::now() + Duration::from_secs(30);
    while !fs::read_to_string(&path).unwrap().contains("left-out") {
        assert!(Instant::now() < deadline, "never told");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_renamed_file_is_made_anew_and_a_full_one_gives_way() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    let log = audit(&path, 400);
    log.record(Event::Stopped);
    flush(&log);
    fs::rename(&path, folder.path().join("rotated")).unwrap();
    log.record(refused("one"));
    flush(&log);
    assert_eq!((lines(&path).len(), lines(&folder.path().join("rotated")).len()), (1, 1));
    for _ in 0..8 {
        log.record(refused("more"));
        flush(&log);
    }
    let full = folder.path().join("audit.jsonl.1");
    assert!(lines(&full).len() > 1);
    assert!(fs::metadata(&full).unwrap().len() < 600 && fs::metadata(&path).unwrap().len() < 600);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
}

#[test]
fn a_file_that_takes_nothing_costs_its_lines_and_nothing_else() {
    assert!(Audit::to_file(AuditFile { path: "/nowhere/audit".into(), addresses: AuditAddresses::Full, rotate_at: 1 }).is_err());
    let log = audit(Path::new("/dev/full"), u64::MAX);
    log.record(Event::Stopped);
    flush(&log);
    assert_eq!(log.counts(), Some(AuditCounts { written: 0, left_out: 0, lost: 1 }));
    Audit::off().record(Event::Stopped);
    assert_eq!(Audit::off().counts(), None);
}

#[test]
fn addresses_are_told_as_configured() {
    let folder = tempfile::tempdir().unwrap();
    let place = |addresses, address: &str| {
        let path = folder.path().join("audit.jsonl");
        Audit::to_file(AuditFile { path, addresses, rotate_at: u64::MAX }).unwrap().place(address.parse().unwrap())
    };
    assert_eq!(place(AuditAddresses::Full, "::ffff:192.0.2.7").as_deref(), Some("192.0.2.7"));
    assert_eq!(place(AuditAddresses::Prefix, "::ffff:192.0.2.7").as_deref(), Some("192.0.2.0/24"));
    assert_eq!(place(AuditAddresses::Prefix, "2001:db8:1:2::3").as_deref(), Some("2001:db8:1::/48"));
    assert_eq!(place(AuditAddresses::None, "192.0.2.7"), None);
}
