// Package getter is the part of go-getter that unpacks zips.
package getter

import (
	"errors"
	"os"
	"path/filepath"
)

// ErrSymlinkCopy belongs to copying directories, which unpacking does not.
var ErrSymlinkCopy = errors.New("not used here")

func resolveSymlinks(path string) (string, error) { return filepath.EvalSymlinks(path) }

// unused stands for the decompressors of other formats.
type unused struct {
	FilesLimit    int
	FileSizeLimit int64
}

func (*unused) Decompress(string, string, bool, os.FileMode) error { return errors.ErrUnsupported }

type (
	TarDecompressor      = unused
	TarBzip2Decompressor = unused
	TarGzipDecompressor  = unused
	TarXzDecompressor    = unused
	TarZstdDecompressor  = unused
	Bzip2Decompressor    = unused
	GzipDecompressor     = unused
	XzDecompressor       = unused
	ZstdDecompressor     = unused
)
