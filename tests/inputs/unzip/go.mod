module unzip

go 1.24

require github.com/hashicorp/go-getter v1.8.6
