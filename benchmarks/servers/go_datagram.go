// Go's net package: ReadFrom and WriteTo, one datagram after the other, on one core.
// Modes: udp (each is echoed), collect (only a question is answered, with how many have come).
package main

import (
	"flag"
	"fmt"
	"net"
	"os"
	"runtime"
	"strconv"
)

func main() {
	port := flag.Int("port", 0, "")
	mode := flag.String("mode", "udp", "")
	flag.Parse()
	runtime.GOMAXPROCS(1)
	socket, err := net.ListenPacket("udp4", fmt.Sprintf("127.0.0.1:%d", *port))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(socket.LocalAddr().(*net.UDPAddr).Port)
	buffer := make([]byte, 65535)
	count := 0
	for {
		n, peer, err := socket.ReadFrom(buffer)
		if err != nil {
			return
		}
		count++
		if *mode == "udp" {
			socket.WriteTo(buffer[:n], peer)
		} else if buffer[0] == '?' {
			socket.WriteTo([]byte(strconv.Itoa(count)), peer)
		}
	}
}
