//! Files against full disks and kills; what agent and process may say.

use std::{fs, path::Path};

use super::{
    deliver::{Failure, pause},
    file::Rotated,
    spec,
    wire::{Frames, Health, MAX_FRAME, Word, frame},
};

fn rotated(path: &Path, max_bytes: u64, keep: u64) -> Rotated {
    Rotated::new(spec::File { path: path.to_owned(), max_bytes, keep })
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).expect("a file")
}

#[test]
fn half_a_line_is_cut_before_the_next_one() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("f");
    for (before, after) in [
        ("", "new\n"),
        ("whole\n", "whole\nnew\n"),
        ("whole\nha", "whole\nnew\n"),
        ("ha", "new\n"),
        (&"x".repeat(200_000), "new\n"),
    ] {
        fs::write(&path, before).expect("a file");
        rotated(&path, 1 << 20, 1).write(b"new\n").expect("written");
        assert_eq!(read(&path), after);
    }
}

#[test]
fn it_is_rotated_before_it_is_too_large_and_old_ones_go() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("f");
    let mut file = rotated(&path, 10, 2);
    for line in ["1......\n", "2......\n", "3......\n", "4......\n"] {
        file.write(line.as_bytes()).expect("written");
    }
    let old = |n: u32| dir.path().join(format!("f.{n}"));
    assert_eq!(
        (read(&path), read(&old(1)), read(&old(2))),
        ("4......\n".into(), "3......\n".into(), "2......\n".into())
    );
    assert!(!old(3).exists());
    // Larger than all of it: alone in its file, but there.
    file.write(&[b"y".repeat(100), b"\n".to_vec()].concat()).expect("written");
    assert_eq!(read(&path).len(), 101);
}

#[test]
fn another_who_rotates_it_takes_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("f");
    let mut file = rotated(&path, 1 << 20, 2);
    file.write(b"1\n").expect("written");
    fs::rename(&path, dir.path().join("moved")).expect("own file");
    file.write(b"2\n").expect("written");
    assert_eq!((read(&path), read(&dir.path().join("moved"))), ("2\n".into(), "1\n".into()));
}

#[test]
fn what_is_no_plain_file_is_not_written() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("f");
    let target = dir.path().join("target");
    fs::write(&target, "").expect("a file");
    std::os::unix::fs::symlink(&target, &path).expect("a link");
    let refused = |path: &Path| matches!(rotated(path, 1 << 20, 1).write(b"1\n"), Err(Failure::Later { .. }));
    assert!(refused(&path), "a link");
    let fifo = dir.path().join("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o644.into(), 0).expect("a fifo");
    assert!(refused(&fifo), "a fifo");
    assert_eq!(read(&target), "");
}

#[test]
fn pauses_grow_and_differ() {
    let longest = |failures| (0..100).map(|_| pause(failures)).max().expect("some");
    assert!(longest(0) <= std::time::Duration::from_millis(500));
    assert!(longest(3) > std::time::Duration::from_millis(500));
    for failures in [10, 40, u32::MAX] {
        assert!(longest(failures) <= std::time::Duration::from_secs(60));
    }
    assert_ne!(pause(10), pause(10));
}

#[test]
fn messages_come_in_pieces_and_nonsense_is_refused() {
    let words = [
        Word::Pull { sink: 1, after: 7 },
        Word::Health { sink: 0, health: Health { failing: Some("x".into()), ..Health::default() } },
        Word::Alive,
    ];
    let bytes: Vec<u8> = words.iter().flat_map(frame).collect();
    for size in [1, 3, bytes.len()] {
        let (mut frames, mut read) = (Frames::<Word>::new(), Vec::new());
        for piece in bytes.chunks(size) {
            frames.add(piece);
            while let Some(word) = frames.next().expect("good") {
                read.push(word);
            }
        }
        assert_eq!(read, words);
    }
    let refused = |bytes: &[u8]| {
        let mut frames = Frames::<Word>::new();
        frames.add(bytes);
        frames.next().is_err()
    };
    assert!(refused(&u32::try_from(MAX_FRAME + 1).expect("small").to_le_bytes()));
    assert!(refused(&[2, 0, 0, 0, b'{', b'}']));
    assert!(refused(&[4, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]));
}
