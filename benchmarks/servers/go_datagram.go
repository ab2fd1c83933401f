// Go's net package: ReadFrom and WriteTo, one datagram after the other, on one core.
package main

import (
	"flag"
	"fmt"
	"net"
	"os"
	"runtime"
)

func main() {
	port := flag.Int("port", 0, "")
	flag.String("mode", "udp", "")
	flag.Parse()
	runtime.GOMAXPROCS(1)
	socket, err := net.ListenPacket("udp4", fmt.Sprintf("127.0.0.1:%d", *port))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(socket.LocalAddr().(*net.UDPAddr).Port)
	buffer := make([]byte, 65535)
	for {
		n, peer, err := socket.ReadFrom(buffer)
		if err != nil {
			return
		}
		socket.WriteTo(buffer[:n], peer)
	}
}
