use sanserve_core::testing::*;

#[test]
fn scratch() {
    let disk = || {
        let mut disk = Disk::new()
            .file("a", "hello\n")
            .file("d/b.txt", "x".repeat(100))
            .fails("denied", sanserve_core::FsError::Denied)
            .fails("busy", sanserve_core::FsError::Exhausted)
            .directory("empty")
            .file("index/index.html", "hi");
        disk.put(b"big.bin", Node::File(File::new(3, 300_000)));
        disk.put(b"mid", Node::File(File::new(4, 3_000)));
        disk
    };
    let n = std::env::var("N").map_or(20, |n| n.parse().unwrap());
    for seed in 0..n {
        let s = World::new(seed).connections(100).lasting(3_600_000).disk(disk()).run();
        if seed < 2 {
            println!("{s}");
        }
    }
}
