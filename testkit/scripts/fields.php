#!/usr/bin/php-cgi
<?php
// Reports the fields of a form, as PHP has read them.
header('Content-Type: text/plain');
foreach ($_GET + $_POST as $name => $value) {
    echo "$name None ", strlen($value), ' ', md5($value), "\n";
}
foreach ($_FILES as $name => $file) {
    echo "$name $file[name] $file[size] ", md5_file($file['tmp_name']), "\n";
}
