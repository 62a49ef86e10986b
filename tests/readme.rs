//! The program that README.md shows is the one that is built and tested as an example.

mod support;

#[test]
fn the_readme_shows_the_smallest_example_as_it_is() {
    let readme = std::fs::read_to_string(support::root().join("README.md")).unwrap();
    let example = std::fs::read_to_string(support::root().join("c_examples/example_first.c")).unwrap();
    let code = example.split_once("*/\n").expect("a comment on top").1;
    let shown =
        readme.split_once("```c\n").and_then(|(_, rest)| rest.split_once("```")).expect("a C block").0;
    assert!(shown == code, "README.md's program differs from c_examples/example_first.c");
}
