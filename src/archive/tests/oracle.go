// What OpenTofu's extractor would make of archives: the rules of its zip extractor over Go's archive/zip, with a tree in
// memory. Reads archives from standard input, each behind its length (4 bytes, little endian); prints one line for each.
package main

import (
	"archive/zip"
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strings"
)

type node struct {
	dir  bool
	exec bool
	sum  uint32
	size int
}

type tree map[string]node

// mkdir makes a directory and those above it; false if a file stands in the way or a name is none.
func (t tree) mkdir(path string) bool {
	if path == "/" {
		return true
	}
	if !t.mkdir(filepath.Dir(path)) || !sound(path) {
		return false
	}
	if n, ok := t[path]; ok {
		return n.dir
	}
	t[path] = node{dir: true}
	return true
}

func sound(path string) bool {
	return len(filepath.Base(path)) <= 255 && !strings.Contains(path, "\x00")
}

func climbs(name string) bool {
	for _, part := range strings.FieldsFunc(name, func(r rune) bool { return r == '/' || r == '\\' }) {
		if part == ".." {
			return true
		}
	}
	return false
}

func extract(data []byte) (tree, bool) {
	r, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil || len(r.File) == 0 {
		return nil, false
	}
	t := tree{}
	for _, f := range r.File {
		if climbs(f.Name) {
			return nil, false
		}
		path := filepath.Join("/", f.Name)
		if f.FileInfo().IsDir() {
			if !t.mkdir(path) {
				return nil, false
			}
			continue
		}
		if path == "/" || !t.mkdir(filepath.Dir(path)) || !sound(path) || t[path].dir {
			return nil, false
		}
		src, err := f.Open()
		if err != nil {
			return nil, false
		}
		content, err := io.ReadAll(src)
		if err != nil {
			return nil, false
		}
		t[path] = node{exec: f.Mode()&0o100 != 0, sum: crc32.ChecksumIEEE(content), size: len(content)}
	}
	return t, true
}

func main() {
	in := bufio.NewReader(os.Stdin)
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	for {
		var length uint32
		if binary.Read(in, binary.LittleEndian, &length) != nil {
			return
		}
		data := make([]byte, length)
		if _, err := io.ReadFull(in, data); err != nil {
			panic(err)
		}
		t, ok := extract(data)
		if !ok {
			fmt.Fprintln(out, "refused")
			continue
		}
		lines := []string{}
		for path, n := range t {
			if n.dir {
				lines = append(lines, fmt.Sprintf("%x/", path[1:]))
			} else {
				lines = append(lines, fmt.Sprintf("%x:%t:%08x:%d", path[1:], n.exec, n.sum, n.size))
			}
		}
		sort.Strings(lines)
		fmt.Fprintln(out, strings.Join(lines, " "))
	}
}
