/* A FUSE file system with the file "file" of 8,192 bytes, whose reads are never answered.
 *
 *   hanging -f FOLDER: writes "ready" once it is mounted, and "asked" at each read.
 */
#define FUSE_USE_VERSION 31
#include <fuse3/fuse.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int get_attributes(const char *path, struct stat *status, struct fuse_file_info *info)
{
    (void)info;
    memset(status, 0, sizeof *status);
    status->st_nlink = 1;
    if (!strcmp(path, "/")) {
        status->st_mode = S_IFDIR | 0755;
        return 0;
    }
    status->st_mode = S_IFREG | 0444;
    status->st_size = 8192;
    return strcmp(path, "/file") ? -ENOENT : 0;
}

static int read_file(const char *path, char *into, size_t n, off_t at, struct fuse_file_info *info)
{
    (void)path, (void)into, (void)n, (void)at, (void)info;
    puts("asked");
    fflush(stdout);
    while (pause()) continue;
    return -EIO;
}

static void *begin(struct fuse_conn_info *connection, struct fuse_config *config)
{
    (void)connection, (void)config;
    puts("ready");
    fflush(stdout);
    return NULL;
}

static const struct fuse_operations operations = {
    .getattr = get_attributes, .read = read_file, .init = begin};

int main(int argc, char **argv)
{
    argv[0] = "hanging"; /* the program's own name may hold what FUSE takes for options */
    return fuse_main(argc, argv, &operations, NULL);
}
