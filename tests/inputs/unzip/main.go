// unzip unpacks archives as OpenTofu does and says what tree that made.
//
// Standard input holds archives, each behind its length (32 bits, little endian); for each, standard output gets an
// answer behind its length: "error: TEXT", or a line "KIND MODE SIZE SHA256 NAME" for each file and directory, where
// NAME is in hexadecimal digits. Everything happens below the directory that is the only argument.
//
// The package getter holds the files of go-getter that unpack zips, as the module has them.
package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"unzip/getter"
)

func main() {
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// nobody is whom the program becomes where it is started by root and can: root may write files that their owner may not.
const nobody = 65534

func run(dir string) error {
	// Names are relative, since the way to dir need not be open to nobody.
	if err := os.Chdir(dir); err != nil {
		return err
	}
	if os.Geteuid() == 0 && os.Chown(".", nobody, nobody) == nil && syscall.Setgid(nobody) == nil {
		_ = syscall.Setuid(nobody)
	}
	in, out := bufio.NewReaderSize(os.Stdin, 1<<20), bufio.NewWriter(os.Stdout)
	for {
		var length uint32
		if err := binary.Read(in, binary.LittleEndian, &length); err == io.EOF {
			return out.Flush()
		} else if err != nil {
			return err
		}
		archive := make([]byte, length)
		if _, err := io.ReadFull(in, archive); err != nil {
			return err
		}
		answer, err := answer(archive)
		if err != nil {
			return err
		}
		if err := binary.Write(out, binary.LittleEndian, uint32(len(answer))); err != nil {
			return err
		}
		if _, err := out.Write(answer); err != nil {
			return err
		}
		if in.Buffered() == 0 {
			if err := out.Flush(); err != nil {
				return err
			}
		}
	}
}

const source, target = "archive", "tree"

func answer(archive []byte) ([]byte, error) {
	if err := os.WriteFile(source, archive, 0o600); err != nil {
		return nil, err
	}
	if err := new(getter.ZipDecompressor).Decompress(target, source, true, 0); err != nil {
		return []byte("error: " + err.Error()), os.RemoveAll(target)
	}
	var lines bytes.Buffer
	err := filepath.WalkDir(target, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || path == target {
			return err
		}
		return describe(&lines, path)
	})
	return lines.Bytes(), errors.Join(err, os.RemoveAll(target))
}

func describe(out io.Writer, path string) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	kind, sum, size := "other", []byte(nil), int64(0)
	switch {
	case info.IsDir():
		kind = "dir"
	case info.Mode().IsRegular():
		kind, size = "file", info.Size()
		// Its mode may forbid its owner to read it.
		if err := os.Chmod(path, 0o600); err != nil {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		hash := sha256.Sum256(content)
		sum = hash[:]
	}
	name, err := filepath.Rel(target, path)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "%s %o %d %x %x\n", kind, info.Mode().Perm(), size, sum, name)
	return err
}
