// A provider that runs: plugin protocol 5 by hand over the HTTP/2 of the standard library, so that building it needs no
// network. It has one data source, tiny_greeting, whose text is "hello".
package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
)

const service = "/tfplugin5.Provider/"

// field is one length-delimited field of a protobuf message.
func field(number int, parts ...[]byte) []byte {
	var body []byte
	for _, part := range parts {
		body = append(body, part...)
	}
	out := binary.AppendUvarint(nil, uint64(number)<<3|2)
	out = binary.AppendUvarint(out, uint64(len(body)))
	return append(out, body...)
}

// truth is one field that is true.
func truth(number int) []byte {
	return append(binary.AppendUvarint(nil, uint64(number)<<3), 1)
}

// bytesOf is the last length-delimited field of that number.
func bytesOf(message []byte, number uint64) []byte {
	var found []byte
	for len(message) > 0 {
		tag, n := binary.Uvarint(message)
		message = message[n:]
		length, n := binary.Uvarint(message)
		message = message[n:]
		if tag&7 != 2 {
			continue
		}
		if tag>>3 == number {
			found = message[:length]
		}
		message = message[length:]
	}
	return found
}

func schema() []byte {
	provider := field(1, field(2))
	attribute := field(2, field(1, []byte("text")), field(2, []byte(`"string"`)), truth(6))
	greeting := field(2, attribute)
	sources := field(3, field(1, []byte("tiny_greeting")), field(2, greeting))
	return append(provider, sources...)
}

func answer(method string, request []byte) ([]byte, bool) {
	switch method {
	case service + "GetSchema":
		return schema(), true
	case service + "PrepareProviderConfig":
		return field(1, bytesOf(request, 1)), true
	case service + "ValidateDataSourceConfig", service + "Configure", service + "Stop", "/plugin.GRPCController/Shutdown":
		return nil, true
	case service + "ReadDataSource":
		// {"text": "hello"} in MessagePack.
		state := append([]byte{0x81, 0xa4}, "text\xa5hello"...)
		return field(1, field(1, state)), true
	}
	return nil, false
}

func serve(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/grpc")
	w.Header().Set("Trailer", "Grpc-Status, Grpc-Message")
	status := func(code, message string) {
		w.Header().Set("Grpc-Status", code)
		w.Header().Set("Grpc-Message", message)
	}
	if strings.HasPrefix(r.URL.Path, "/plugin.GRPCBroker/") || strings.HasPrefix(r.URL.Path, "/plugin.GRPCStdio/") {
		w.WriteHeader(http.StatusOK)
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil || len(body) < 5 {
		status("3", "no message")
		return
	}
	reply, known := answer(r.URL.Path, body[5:])
	if !known {
		w.WriteHeader(http.StatusOK)
		status("12", "not implemented: "+r.URL.Path)
		return
	}
	frame := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(reply)))
	w.Write(append(frame, reply...))
	status("0", "")
	if strings.HasSuffix(r.URL.Path, "/Shutdown") {
		go os.Exit(0)
	}
}

func main() {
	if os.Getenv("TF_PLUGIN_MAGIC_COOKIE") == "" {
		fmt.Fprintln(os.Stderr, "this is a plugin, to be run by Terraform or OpenTofu")
		os.Exit(1)
	}
	dir, err := os.MkdirTemp("", "tiny")
	if err != nil {
		panic(err)
	}
	socket := filepath.Join(dir, "s")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		panic(err)
	}
	fmt.Printf("1|5|unix|%s|grpc|\n", socket)
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{Handler: http.HandlerFunc(serve), Protocols: &protocols}
	panic(server.Serve(listener))
}
